"""A feature map by name, and the gradient of a class score with respect to it.

Nothing below the map is differentiated: at the layer, zeros are added to the module's output, and
the gradient is taken with respect to them. The zeros get the shape of this very batch, where
Linen's ``perturb`` keeps the one of initialisation (docs/decisions/0020).
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


def layer_names(model: nn.Module) -> tuple[str, ...]:
    """The layers that can be asked for, from the image up; the last is `features`' map."""
    return tuple(getattr(model, "layers", {}))


def layer_grid(model: nn.Module, layer: str | None) -> Grid | None:
    """Where the cells of a layer's map lie in the image; None for networks that do not tell.

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


def map_and_gradient(
    model: nn.Module,
    variables: Variables,
    x_BxHxWx3: jax.Array,
    class_ids_B: jax.Array | None,
    target: str,
    layer: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A feature map A, dS/dA, and the logits, in one forward pass.

    Args:
      model: see `grad_cam`.
      variables: see `grad_cam`.
      x_BxHxWx3: see `grad_cam`.
      class_ids_B: int32 in [0, K); the class with the largest logit when None.
      target: a key of `TARGETS`.
      layer: a name of `layer_names`; the last feature map when None.

    Returns:
      (B, h, w, C) and (B, h, w, C) float32 whatever the compute type, and (B, K) float32.
    """
    # Linen's type says that any call may give a tuple; only one with `mutable` does.
    apply: Any = partial(model.apply, variables, train=False)

    def score(logits_BxK: jax.Array) -> jax.Array:
        scores_BxK = TARGETS[target](logits_BxK)
        ids_B = logits_BxK.argmax(1) if class_ids_B is None else class_ids_B
        # Each image's score depends on its own map only: the gradient of the sum is all of them.
        return jnp.take_along_axis(scores_BxK, ids_B[:, None], axis=1).sum()

    def from_features(f_BxhxwxC: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BxK = apply(f_BxhxwxC, method="classify")
        return score(logits_BxK), logits_BxK

    def from_layer(zeros_BxhxwxC: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        with _at_layer(layer or "", zeros_BxhxwxC) as maps:
            logits_BxK = apply(x_BxHxWx3)
        return score(logits_BxK), (maps[0], logits_BxK)

    if layer is None:
        # In bfloat16 networks too, the gradient and the sums over the map are taken in float32.
        f_BxhxwxC = apply(x_BxHxWx3, method="features").astype(jnp.float32)
        gradient, logits_BxK = jax.grad(from_features, has_aux=True)(f_BxhxwxC)
        return f_BxhxwxC, gradient, logits_BxK
    shape = _shape_at(model, variables, x_BxHxWx3, layer)
    gradient, (f_BxhxwxC, logits_BxK) = jax.grad(from_layer, has_aux=True)(jnp.zeros(shape))
    return f_BxhxwxC, gradient, logits_BxK


@contextmanager
def _at_layer(layer: str, added: jax.Array | float) -> Iterator[list[jax.Array]]:
    """Adds something to a module's output; the list then holds the map, in float32."""
    maps: list[jax.Array] = []

    def interceptor(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name != "__call__" or "/".join(context.module.path) != layer:
            return y
        maps.append(y.astype(jnp.float32))
        return (maps[-1] + added).astype(y.dtype)

    with nn.intercept_methods(interceptor):
        yield maps


def _shape_at(model, variables, x_BxHxWx3, layer: str) -> tuple[int, ...]:
    def run(variables, x_BxHxWx3):
        with _at_layer(layer, 0.0) as maps:
            model.apply(variables, x_BxHxWx3, train=False)
        return maps[0]

    return jax.eval_shape(run, variables, x_BxHxWx3).shape
