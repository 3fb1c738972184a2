"""A network whose maps follow from algebra: the image is the feature map."""

import jax
import numpy as np
from flax import linen as nn


class PooledLinear(nn.Module):
    """Global average and one dense layer."""

    num_classes: int

    def setup(self):
        self.head = nn.Dense(self.num_classes)

    def features(self, x, *, train):
        return x

    def classify(self, f, *, train):
        return self.head(f.mean((1, 2)))

    def __call__(self, x, *, train):
        return self.classify(self.features(x, train=train), train=train)


def linear_case():
    """(model, variables, maps (3, 4, 6, 7)); five classes."""
    model = PooledLinear(5)
    x = np.random.default_rng(0).standard_normal((3, 4, 6, 7)).astype(np.float32)
    return model, model.init(jax.random.key(0), x, train=False), x
