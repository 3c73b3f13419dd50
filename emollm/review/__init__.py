"""Annotated posts and people: what to look at, labels back into training data, several annotators of one corpus."""
