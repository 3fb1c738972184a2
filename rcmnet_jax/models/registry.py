"""The six networks of the paper by name, and how to build one."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.models.alexnet import AlexNet
from rcmnet_jax.models.norm import NORMS
from rcmnet_jax.models.rcmnet import RCMNet
from rcmnet_jax.models.resnet import STEMS
from rcmnet_jax.models.vgg import VGG19

# Table 4 of the paper: -C adds CBAM, -M adds MHSA, RCMNet both.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(RCMNet, use_cbam=False, use_mhsa=False),
    "resnet18_c": partial(RCMNet, use_cbam=True, use_mhsa=False),
    "resnet18_m": partial(RCMNet, use_cbam=False, use_mhsa=True),
    "rcmnet": RCMNet,
    "vgg19": VGG19,
    "alexnet": AlexNet,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def create_model(
    name: str,
    num_classes: int,
    *,
    dtype: str = "float32",
    param_dtype: str = "float32",
    **options: Any,
) -> nn.Module:
    """Builds one of the six networks.

    Args:
      name: a key of `MODELS`.
      num_classes: K, the length of the logits.
      dtype: compute type, a key of `DTYPES`.
      param_dtype: storage type of parameters, a key of `DTYPES`.
      **options: further fields of the network, e.g. ``norm="group"``, ``stem="small"``.

    Returns:
      A Linen module with ``__call__(x, *, train)``, ``features(x, *, train)`` and
      ``classify(f, *, train)``.

    Raises:
      ConfigError: unknown name, type or option, or fewer than two classes.
    """
    if name not in MODELS:
        raise ConfigError(f"model {name!r} is not known: choose from {', '.join(MODELS)}")
    if num_classes < 2:
        raise ConfigError(f"a classifier needs at least two classes, got num_classes={num_classes}")
    for key, value in (("dtype", dtype), ("param_dtype", param_dtype)):
        if value not in DTYPES:
            raise ConfigError(f"model.{key} {value!r} is not one of {', '.join(DTYPES)}")
    _check_options(name, options)
    # JSON knows no tuples, and a module that is static in jit must be hashable.
    options = {key: _with_tuples(value) for key, value in options.items()}
    return MODELS[name](
        num_classes=num_classes, dtype=DTYPES[dtype], param_dtype=DTYPES[param_dtype], **options
    )


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _check_options(name: str, options: dict[str, Any]) -> None:
    builder = MODELS[name]
    network: Any = builder.func if isinstance(builder, partial) else builder
    fields = {field.name for field in dataclasses.fields(network)} - {"parent", "name"}
    unknown = sorted(set(options) - fields)
    if unknown:
        raise ConfigError(
            f"model {name!r} has no option {', '.join(unknown)}:"
            f" it takes {', '.join(sorted(fields))}"
        )
    for key, choices in (("norm", NORMS), ("stem", STEMS)):
        if key in options and options[key] not in choices:
            raise ConfigError(f"model.{key} {options[key]!r} is not one of {', '.join(choices)}")
