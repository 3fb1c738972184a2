"""ReLU and max-pooling as modules without parameters, so that their feature maps have a name.

In networks without residual blocks the rectified maps are what Grad-CAM looks at, and a function's
result has no name to ask for.
"""

import jax
from flax import linen as nn

from rcmnet_jax.models.max_pool import max_pool


class ReLU(nn.Module):
    """``max(x, 0)``."""

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array) -> jax.Array:
        return nn.relu(x_BxhxwxC)


class MaxPool(nn.Module):
    """`max_pool` without padding."""

    size: int
    stride: int

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array) -> jax.Array:
        return max_pool(x_BxhxwxC, size=self.size, stride=self.stride)
