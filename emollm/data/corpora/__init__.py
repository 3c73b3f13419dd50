"""Readers of the official corpus files: one module a format, each giving `Example`s."""
