"""emollm: open language models fine-tuned to read affect in text."""

__version__ = "0.1.0"
