"""The chosen model as an HTTP endpoint on Ray Serve."""
