"""VGG19 (Simonyan & Zisserman 2015), configuration E without batch norm, as torchvision's."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.kernels.pooling import adaptive_average_pool, all_but_repeats
from rcmnet_jax.models.grid import Grid
from rcmnet_jax.models.layers import Conv, MaxPool, ReLU, require_images

# (convolutions, channels) of each of the five stages; a 2x2/2 max-pool ends a stage.
STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


class VGG19(nn.Module):
    """Sixteen 3x3 convolutions in five stages, then a three-layer classifier of 4096 units.

    Attributes:
      num_classes: K.
      stages: (convolutions, channels) of each stage.
      hidden: units of the classifier's two hidden layers.
      dropout: rate after each hidden layer.
      dtype: compute type; logits are float32 always.
      param_dtype: storage type of the parameters.
    """

    num_classes: int
    stages: tuple[tuple[int, int], ...] = STAGES
    hidden: int = 4096
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: dict[str, Any] = {"padding": 1, "use_bias": True, **types}
        self.conv_stages = [
            [
                (
                    Conv(channels, 3, name=f"stage{s}_conv{c}", **conv),
                    ReLU(name=f"stage{s}_relu{c}"),
                )
                for c in range(1, count + 1)
            ]
            for s, (count, channels) in enumerate(self.stages, start=1)
        ]
        self.pools = [MaxPool(2, 2, name=f"stage{s + 1}_pool") for s in range(len(self.stages))]
        dense: dict[str, Any] = {"kernel_init": nn.initializers.normal(0.01), **types}
        self.fc1 = nn.Dense(self.hidden, name="fc1", **dense)
        self.fc2 = nn.Dense(self.hidden, name="fc2", **dense)
        self.head = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal(0.01),
            param_dtype=self.param_dtype,
            name="head",
        )
        self.dropout1 = nn.Dropout(self.dropout)
        self.dropout2 = nn.Dropout(self.dropout)

    @property
    def layers(self) -> dict[str, Grid]:
        """The feature maps that have a name, from the image up, and where their cells lie.

        Those of the convolutions are rectified; the last one is `features`' map.
        """
        grid = Grid()
        layers: dict[str, Grid] = {}
        for s, (count, _) in enumerate(self.stages, start=1):
            layers |= {f"stage{s}_relu{c}": grid for c in range(1, count + 1)}
            grid = grid.after(2, stride=2)
            layers[f"stage{s}_pool"] = grid
        return layers

    def features(self, x_BxHxWx3: jax.Array, *, train: bool) -> jax.Array:
        """The last feature map (B, H // 32, W // 32, 512), after the fifth max-pool.

        Raises:
          UserError: images smaller than 32 pixels or without three channels.
        """
        del train  # No batch statistics and no dropout among the convolutions.
        require_images(x_BxHxWx3, smallest=32)
        x = x_BxHxWx3.astype(self.dtype)
        for convs, pool in zip(self.conv_stages, self.pools, strict=True):
            for conv, relu in convs:
                x = relu(conv(x))
            x = pool(x)
        return x

    def pool(self, f_BxhxwxC: jax.Array) -> jax.Array:
        """What ``classify`` needs of a feature map: 7x7 adaptive averages (B, 7, 7, C).

        Or the map itself (B, h, w, C) where it has fewer cells.
        """
        return all_but_repeats(f_BxhxwxC, size=7)

    def classify(self, f_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        """Logits (B, K), float32, of a feature map, pooled or not: three dense layers."""
        x = adaptive_average_pool(f_BxhxwxC, size=7)
        x = self.dropout1(nn.relu(self.fc1(x.reshape(x.shape[0], -1))), deterministic=not train)
        x = self.dropout2(nn.relu(self.fc2(x)), deterministic=not train)
        return self.head(x.astype(jnp.float32))

    def __call__(self, x_BxHxWx3: jax.Array, *, train: bool) -> jax.Array:
        """Logits (B, K), float32, of images (B, H, W, 3)."""
        return self.classify(self.features(x_BxHxWx3, train=train), train=train)
