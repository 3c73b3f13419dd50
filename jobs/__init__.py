"""Thin entry points: parse the options, build, hand over to emollm."""
