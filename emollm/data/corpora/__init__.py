"""Readers of the official corpus files: one module per format, each returning `Example`s."""
