"""Experiments: one file each, a delta on `configs.base`, with its command in the header."""
