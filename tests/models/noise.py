"""Variables full of noise, made by numpy: compiling an initialisation takes half a minute."""

import math

import jax
import numpy as np


def shapes_of(model, image_shape):
    """The network's variables for such images, as shapes; nothing is computed."""
    x = jax.ShapeDtypeStruct(image_shape, np.float32)
    shapes = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)
    return {key: tree for key, tree in shapes.items() if key in ("params", "batch_stats")}


def noise_variables(model, image_shape, seed=0):
    """Every array random and of a sensible size: no scale is zero, no variance negative."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        r = rng.standard_normal(leaf.shape).astype(leaf.dtype)
        if name == "kernel":
            return r * np.float32(math.sqrt(2 / math.prod(leaf.shape[:-1])))
        if name in ("rel_height", "rel_width"):
            return r * np.float32(leaf.shape[-1] ** -0.5)
        if name == "var":
            return np.exp(np.float32(0.1) * r)
        offset = 1 if name == "scale" else 0
        return offset + np.float32(0.1) * r

    return jax.tree_util.tree_map_with_path(fill, shapes_of(model, image_shape))
