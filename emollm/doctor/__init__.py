"""Is a Ray cluster sound? `emollm doctor` asks every node."""
