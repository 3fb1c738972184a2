"""RCMNet in JAX/Flax: train, transfer, evaluate and explain blood-cell image classifiers.

Importing this package imports nothing heavy; the rooms below it import jax when they need it.
"""

__version__ = "0.1.0"
