"""The networks, pure Linen: nothing here knows of data, training or files."""

from rcmnet_jax.models.alexnet import AlexNet as AlexNet
from rcmnet_jax.models.bot import MHSA2D as MHSA2D
from rcmnet_jax.models.bot import BoTBlock as BoTBlock
from rcmnet_jax.models.bot import RelativePosition2D as RelativePosition2D
from rcmnet_jax.models.cbam import CBAM as CBAM
from rcmnet_jax.models.cbam import ChannelAttention as ChannelAttention
from rcmnet_jax.models.cbam import SpatialAttention as SpatialAttention
from rcmnet_jax.models.conv import Conv as Conv
from rcmnet_jax.models.norm import Norm as Norm
from rcmnet_jax.models.rcmnet import RCMNet as RCMNet
from rcmnet_jax.models.registry import DTYPES as DTYPES
from rcmnet_jax.models.registry import MODELS as MODELS
from rcmnet_jax.models.registry import create_model as create_model
from rcmnet_jax.models.resnet import BasicBlock as BasicBlock
from rcmnet_jax.models.resnet import ResNetStage as ResNetStage
from rcmnet_jax.models.resnet import Stem as Stem
from rcmnet_jax.models.vgg import VGG19 as VGG19
