"""The commands: each module combines rooms that do not import each other."""
