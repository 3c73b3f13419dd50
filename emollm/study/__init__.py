"""Findings from an annotated corpus: groups, time, words, corrected and compared. What `emollm report` runs."""
