"""Scores of finished runs: on their own split, on other images, and on images of another lab."""
