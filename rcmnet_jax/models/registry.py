"""The six networks of the paper: what is known about each, and how to build one.

The facts load without jax, for the command line, the configs and the benchmarks.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rcmnet_jax.errors import ConfigError

if TYPE_CHECKING:
    from flax import linen as nn

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Network:
    """Facts about one network.

    Attributes:
      title: its name in the paper.
      smallest: least height and width of its images, in pixels.
      learning_rate: peak rate at which it trains stably from scratch.
      is_resnet: of the ResNet18 family: residual blocks, batch normalisation, one dense layer.
        The others have no normalisation, and a classifier of three dense layers with dropout.
      has_cbam: CBAM in every residual block.
      has_mhsa: the BoT block after the last stage.
    """

    title: str
    smallest: int = 16
    learning_rate: float = 0.05
    is_resnet: bool = True
    has_cbam: bool = False
    has_mhsa: bool = False


# In the order of the paper's tables. Table 4: -C adds CBAM, -M adds MHSA, RCMNet both. Without
# normalisation layers VGG19 and AlexNet diverge at the ResNets' learning rate.
MODELS: dict[str, Network] = {
    "resnet18": Network("ResNet18"),
    "resnet18_m": Network("ResNet18-M", has_mhsa=True),
    "resnet18_c": Network("ResNet18-C", has_cbam=True),
    "rcmnet": Network("RCMNet", has_cbam=True, has_mhsa=True),
    "vgg19": Network("VGG19", smallest=32, learning_rate=0.01, is_resnet=False),
    "alexnet": Network("AlexNet", smallest=63, learning_rate=0.01, is_resnet=False),
}


def network_facts(name: str) -> Network:
    """The entry of `MODELS`.

    Raises:
      ConfigError: unknown name.
    """
    if name not in MODELS:
        raise ConfigError(f"model {name!r} is not known: choose from {', '.join(MODELS)}")
    return MODELS[name]


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
      dtype: compute type, one of `DTYPES`.
      param_dtype: storage type of parameters, one of `DTYPES`.
      **options: further fields of the network, e.g. ``norm="group"``, ``stem="small"``.

    Returns:
      A Linen module with ``__call__(x, *, train)``, ``features(x, *, train)`` and
      ``classify(f, *, train)``.

    Raises:
      ConfigError: unknown name, type or option, or fewer than two classes.
    """
    import jax.numpy as jnp

    facts = network_facts(name)
    if num_classes < 2:
        raise ConfigError(f"a classifier needs at least two classes, got num_classes={num_classes}")
    for key, value in (("dtype", dtype), ("param_dtype", param_dtype)):
        if value not in DTYPES:
            raise ConfigError(f"model.{key} {value!r} is not one of {', '.join(DTYPES)}")
    network = _network_class(name)
    _check_options(name, network, options)
    # JSON knows no tuples, and a module that is static in jit must be hashable.
    fields = {key: _with_tuples(value) for key, value in options.items()}
    if facts.is_resnet:
        fields = {"use_cbam": facts.has_cbam, "use_mhsa": facts.has_mhsa, **fields}
    return network(
        num_classes=num_classes,
        dtype=getattr(jnp, dtype),
        param_dtype=getattr(jnp, param_dtype),
        **fields,
    )


def _network_class(name: str) -> type[nn.Module]:
    from rcmnet_jax.models.alexnet import AlexNet
    from rcmnet_jax.models.rcmnet import RCMNet
    from rcmnet_jax.models.vgg import VGG19

    networks: dict[str, type[nn.Module]] = {"vgg19": VGG19, "alexnet": AlexNet}
    return networks.get(name, RCMNet)


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _check_options(name: str, network: Any, options: dict[str, Any]) -> None:
    from rcmnet_jax.models.layers import NORMS
    from rcmnet_jax.models.resnet import STEMS

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
