"""Numerical kernels, formulated by shape and backend: arrays in, arrays out, no Flax."""
