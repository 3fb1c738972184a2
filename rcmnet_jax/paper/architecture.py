"""Table 4, computed from the modules: parts, map sizes and parameters."""

import functools
import math

import jax
import jax.numpy as jnp

from rcmnet_jax.models import create_model
from rcmnet_jax.paper.published import NETWORKS

NATIVE = (1, 363, 360, 3)
# Row of the table -> names of its top-level modules in any of the networks.
PARTS = {
    "stem": ("stem",),
    "Layer1": ("stage1",),
    "Layer2": ("stage2",),
    "Layer3": ("stage3",),
    "Layer4": ("stage4",),
    "Layer5 (BoT)": ("bot",),
    "convolutions (VGG19, AlexNet)": ("conv", *(f"stage{n}_" for n in range(1, 6))),
    "hidden dense layers": ("fc",),
    "classifier": ("head",),
}


@functools.cache
def parameter_counts(model_name: str, num_classes: int = 8) -> dict[str, int]:
    """Parameters by row of the table; they sum to the network's."""
    model = create_model(model_name, num_classes=num_classes)
    params = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct(NATIVE, jnp.float32),
    )["params"]
    counts = dict.fromkeys(PARTS, 0)
    for name, part in params.items():
        counts[_row_of(name)] += sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))
    return counts


@functools.cache
def last_map(model_name: str) -> tuple[int, ...]:
    """(h, w, C) of the last feature map for 363x360 images."""
    model = create_model(model_name, num_classes=8)

    def features(key, x):
        variables = model.init(key, x, train=False)
        return model.apply(variables, x, train=False, method="features")

    image = jax.ShapeDtypeStruct(NATIVE, jnp.float32)
    return jax.eval_shape(features, jax.random.key(0), image).shape[1:]


def architecture_rows() -> tuple[tuple[str, ...], ...]:
    """Rows of Table 4: a part each, then the last map and the totals for 8 and 2 classes."""
    rows = [(part, *(_number(parameter_counts(name)[part]) for name in NETWORKS)) for part in PARTS]
    maps = ["x".join(map(str, last_map(name))) for name in NETWORKS]
    totals = [
        (
            f"total, {classes} classes",
            *(_number(sum(parameter_counts(name, classes).values())) for name in NETWORKS),
        )
        for classes in (8, 2)
    ]
    return (*rows, ("last map", *maps), *totals)


def _row_of(name: str) -> str:
    for row, prefixes in PARTS.items():
        if name in prefixes or any(
            name.startswith(prefix) and (prefix.endswith("_") or name[len(prefix) :].isdigit())
            for prefix in prefixes
        ):
            return row
    raise KeyError(f"part {name} of the network is in no row of Table 4")


def _number(count: int) -> str:
    return f"{count:,}" if count else "-"
