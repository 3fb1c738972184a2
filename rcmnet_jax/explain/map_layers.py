"""A feature map by name, and the gradient of a class score with respect to it.

Nothing below the map is differentiated: zeros are added to the output of the layer's module, and
the gradient is taken with respect to them. The zeros have the shape of this batch, where Linen's
``perturb`` keeps the shape of initialisation (docs/decisions/0020).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.errors import UserError
from rcmnet_jax.models.grid import Grid
from rcmnet_jax.types import Variables

# From logits (B, K) to the scores S that are explained.
TARGETS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "logit": lambda logits_BxK: logits_BxK,
    "probability": nn.softmax,
}
# A map of fewer cells a side cannot show where in the cell the network looked.
MIN_CELLS = 6


def layer_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that can be explained, from the image up; the last is `features`' map."""
    return tuple(getattr(model, "layers", {}))


def layer_grid(model: nn.Module, layer: str | None) -> Grid | None:
    """Where the cells of a layer's map lie in the image; None for networks without named layers.

    Raises:
      UserError: the network has no such layer.
    """
    check_layer(model, layer)
    grids = list(getattr(model, "layers", {}).items())
    return dict(grids)[layer] if layer is not None else grids[-1][1] if grids else None


def check_layer(model: nn.Module, layer: str | None) -> None:
    """Raises a `UserError` that lists the layers there are, unless `layer` is one or None."""
    names = layer_names(model)
    if layer is not None and layer not in names:
        there = ", ".join(names) or "none besides the last, layer=None"
        raise UserError(f"the network has no layer {layer!r}: it has {there}")


def layer_shapes(
    model: nn.Module, variables: Variables, image_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The shape (B, h, w, C) of every named layer's map, for images of shape (B, H, W, 3)."""
    names, shapes = layer_names(model), {}

    def record_shape(call, args, kwargs, context):
        y = call(*args, **kwargs)
        name = "/".join(context.module.path)
        if context.method_name == "__call__" and name in names:
            shapes[name] = y.shape
        return y

    with nn.intercept_methods(record_shape):
        image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
        jax.eval_shape(partial(model.apply, train=False), variables, image)
    return {name: shapes[name] for name in names}


def deepest_layer(
    model: nn.Module, variables: Variables, size: tuple[int, int], *, cells: int = MIN_CELLS
) -> str | None:
    """The deepest layer whose map has enough cells a side to show parts of a blood cell.

    Args:
      model: one of our networks.
      variables: its variables; only their shapes are used.
      size: (H, W) of the images in pixels.
      cells: the least number of rows and of columns.

    Returns:
      Its name; None where no layer has as many cells, or the network has no named layers.
    """
    shapes = layer_shapes(model, variables, (1, *size, 3))
    deep_enough = [name for name, (_, h, w, _) in shapes.items() if min(h, w) >= cells]
    return deep_enough[-1] if deep_enough else None


def map_and_gradient(
    model: nn.Module,
    variables: Variables,
    x_BxHxWx3: jax.Array,
    class_ids_B: jax.Array | None,
    target: str,
    layer: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A feature map A, its gradient dS/dA, and the logits, in one forward pass.

    Args:
      model: see `grad_cam`.
      variables: see `grad_cam`.
      x_BxHxWx3: see `grad_cam`.
      class_ids_B: int32 in [0, K); the class with the largest logit when None.
      target: a key of `TARGETS`.
      layer: a name of `layer_names`; the last feature map when None.

    Returns:
      (B, h, w, C) and (B, h, w, C), float32 in bfloat16 networks too, and (B, K) float32.
    """
    # Linen's type says that any call may give a tuple; only one with `mutable` does.
    apply: Any = partial(model.apply, variables, train=False)

    def score(logits_BxK: jax.Array) -> jax.Array:
        scores_BxK = TARGETS[target](logits_BxK)
        ids_B = logits_BxK.argmax(1) if class_ids_B is None else class_ids_B
        # An image's score depends on its own map only, so one gradient of the sum serves all.
        return jnp.take_along_axis(scores_BxK, ids_B[:, None], axis=1).sum()

    def score_of_features(f_BxhxwxC: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BxK = apply(f_BxhxwxC, method="classify")
        return score(logits_BxK), logits_BxK

    def score_with(added_BxhxwxC: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        with adding_at(layer or "", added_BxhxwxC) as maps:
            logits_BxK = apply(x_BxHxWx3)
        return score(logits_BxK), (maps[0], logits_BxK)

    if layer is None:
        f_BxhxwxC = apply(x_BxHxWx3, method="features").astype(jnp.float32)
        gradient, logits_BxK = jax.grad(score_of_features, has_aux=True)(f_BxhxwxC)
    else:
        zeros = jnp.zeros(layer_shapes(model, variables, x_BxHxWx3.shape)[layer])
        gradient, (f_BxhxwxC, logits_BxK) = jax.grad(score_with, has_aux=True)(zeros)
    return f_BxhxwxC, gradient, logits_BxK


@contextmanager
def adding_at(layer: str, added: jax.Array | float) -> Iterator[list[jax.Array]]:
    """Adds an array to the output of a layer's module in every `apply` within the block.

    Yields:
      A list that receives the layer's map, float32, before the addition.
    """
    maps: list[jax.Array] = []

    def interceptor(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name != "__call__" or "/".join(context.module.path) != layer:
            return y
        maps.append(y.astype(jnp.float32))
        return (maps[-1] + added).astype(y.dtype)

    with nn.intercept_methods(interceptor):
        yield maps
