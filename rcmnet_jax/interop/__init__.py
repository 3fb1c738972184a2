"""Weights in and out: PyTorch names and layouts, files of other frameworks."""
