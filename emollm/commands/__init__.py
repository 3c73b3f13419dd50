"""What the jobs do: each module puts rooms together that do not know each other."""
