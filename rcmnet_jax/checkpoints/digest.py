"""A SHA-256 over a tree of arrays: whether two networks have the same weights."""

import hashlib

import jax
import numpy as np

from rcmnet_jax.types import PyTree


def tree_sha256(tree: PyTree) -> str:
    """SHA-256 over paths, types, shapes and bytes of all leaves, in the order of their paths."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
