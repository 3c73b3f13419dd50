"""Scorers answer questions in order: one interface, several inference engines."""
