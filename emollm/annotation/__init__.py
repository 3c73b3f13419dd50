"""Corpora to affect columns, on pools of Ray actors."""
