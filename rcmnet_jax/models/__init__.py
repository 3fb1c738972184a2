"""The networks, pure Linen: nothing here knows of data, training or files.

The registry loads without jax; the networks and their parts load with their first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from rcmnet_jax.models.registry import DTYPES as DTYPES
from rcmnet_jax.models.registry import MODELS as MODELS
from rcmnet_jax.models.registry import Network as Network
from rcmnet_jax.models.registry import create_model as create_model

if TYPE_CHECKING:
    from rcmnet_jax.models.alexnet import AlexNet as AlexNet
    from rcmnet_jax.models.bot import MHSA2D as MHSA2D
    from rcmnet_jax.models.bot import BoTBlock as BoTBlock
    from rcmnet_jax.models.bot import RelativePosition2D as RelativePosition2D
    from rcmnet_jax.models.cbam import CBAM as CBAM
    from rcmnet_jax.models.cbam import ChannelAttention as ChannelAttention
    from rcmnet_jax.models.cbam import SpatialAttention as SpatialAttention
    from rcmnet_jax.models.layers import Conv as Conv
    from rcmnet_jax.models.layers import Norm as Norm
    from rcmnet_jax.models.rcmnet import RCMNet as RCMNet
    from rcmnet_jax.models.resnet import BasicBlock as BasicBlock
    from rcmnet_jax.models.resnet import ResNetStage as ResNetStage
    from rcmnet_jax.models.resnet import Stem as Stem
    from rcmnet_jax.models.vgg import VGG19 as VGG19

_MODULE_OF = {
    "AlexNet": "alexnet",
    "BasicBlock": "resnet",
    "BoTBlock": "bot",
    "CBAM": "cbam",
    "ChannelAttention": "cbam",
    "Conv": "layers",
    "MHSA2D": "bot",
    "Norm": "layers",
    "RCMNet": "rcmnet",
    "RelativePosition2D": "bot",
    "ResNetStage": "resnet",
    "SpatialAttention": "cbam",
    "Stem": "resnet",
    "VGG19": "vgg",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
