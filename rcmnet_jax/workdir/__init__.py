"""The folder of one run: its lock, its config and its record of test access."""
