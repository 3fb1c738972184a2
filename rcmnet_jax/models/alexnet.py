"""AlexNet as torchvision builds it (Krizhevsky 2014, the "one weird trick" version)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.kernels.pooling import adaptive_average_pool, all_but_repeats
from rcmnet_jax.models.grid import Grid
from rcmnet_jax.models.layers import Conv, MaxPool, ReLU, require_images, torch_uniform


class AlexNet(nn.Module):
    """Five convolutions and a three-layer classifier of 4096 units.

    Attributes:
      num_classes: K.
      hidden: units of the classifier's two hidden layers.
      dropout: rate before each hidden layer.
      dtype: compute type; logits are float32 always.
      param_dtype: storage type of the parameters.
    """

    num_classes: int
    hidden: int = 4096
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: dict[str, Any] = {"use_bias": True, "kernel_init": torch_uniform, **types}
        dense: dict[str, Any] = {"kernel_init": torch_uniform, **types}
        self.conv1 = Conv(64, 11, stride=4, padding=2, name="conv1", **conv)
        self.conv2 = Conv(192, 5, padding=2, name="conv2", **conv)
        self.conv3 = Conv(384, 3, padding=1, name="conv3", **conv)
        self.conv4 = Conv(256, 3, padding=1, name="conv4", **conv)
        self.conv5 = Conv(256, 3, padding=1, name="conv5", **conv)
        self.relu1, self.relu2, self.relu3, self.relu4, self.relu5 = (
            ReLU(name=f"relu{n}") for n in range(1, 6)
        )
        self.pool1, self.pool2, self.pool5 = (MaxPool(3, 2, name=f"pool{n}") for n in (1, 2, 5))
        self.fc1 = nn.Dense(self.hidden, name="fc1", **dense)
        self.fc2 = nn.Dense(self.hidden, name="fc2", **dense)
        self.head = nn.Dense(
            self.num_classes, kernel_init=torch_uniform, param_dtype=self.param_dtype, name="head"
        )
        self.dropout1 = nn.Dropout(self.dropout)
        self.dropout2 = nn.Dropout(self.dropout)

    @property
    def layers(self) -> dict[str, Grid]:
        """The feature maps that have a name, from the image up, and where their cells lie.

        Those of the convolutions are rectified; the last one is `features`' map.
        """
        relu1 = Grid().after(11, stride=4, padding=2)
        pool1 = relu1.after(3, stride=2)
        # The other convolutions keep the size, and with it the centres.
        pool2 = pool1.after(3, stride=2)
        grids = (relu1, pool1, pool1, pool2, pool2, pool2, pool2, pool2.after(3, stride=2))
        names = ("relu1", "pool1", "relu2", "pool2", "relu3", "relu4", "relu5", "pool5")
        return dict(zip(names, grids, strict=True))

    def features(self, x_BxHxWx3: jax.Array, *, train: bool) -> jax.Array:
        """The last feature map (B, h, w, 256), after the third max-pool.

        Raises:
          UserError: images smaller than 63 pixels or without three channels.
        """
        del train  # No batch statistics and no dropout among the convolutions.
        require_images(x_BxHxWx3, smallest=63)
        x = x_BxHxWx3.astype(self.dtype)
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        return self.pool5(self.relu5(self.conv5(x)))

    def pool(self, f_BxhxwxC: jax.Array) -> jax.Array:
        """What ``classify`` needs of a feature map: 6x6 adaptive averages (B, 6, 6, C).

        Or the map itself (B, h, w, C) where it has fewer cells.
        """
        return all_but_repeats(f_BxhxwxC, size=6)

    def classify(self, f_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        """Logits (B, K), float32, of a feature map, pooled or not: three dense layers."""
        x = self.dropout1(adaptive_average_pool(f_BxhxwxC, size=6), deterministic=not train)
        x = nn.relu(self.fc1(x.reshape(x.shape[0], -1)))
        x = nn.relu(self.fc2(self.dropout2(x, deterministic=not train)))
        return self.head(x.astype(jnp.float32))

    def __call__(self, x_BxHxWx3: jax.Array, *, train: bool) -> jax.Array:
        """Logits (B, K), float32, of images (B, H, W, 3)."""
        return self.classify(self.features(x_BxHxWx3, train=train), train=train)
