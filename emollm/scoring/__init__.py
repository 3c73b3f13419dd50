"""Scorers: questions in, answers out, order kept. One interface, several engines."""
