"""A network of two layers with the interface of ours, for what does not depend on the network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.training.state import TrainState, create_train_state
from rcmnet_jax.training.steps import Recipe

SHAPE = (1, 6, 6, 3)


class TinyNet(nn.Module):
    """Convolution, ReLU, average, dense: no batch norm, so examples do not see each other."""

    num_classes: int = 3

    def setup(self):
        self.conv = nn.Conv(4, (3, 3), padding=1)
        self.head = nn.Dense(self.num_classes)

    def features(self, x_BxHxWx3, *, train: bool):
        return nn.relu(self.conv(x_BxHxWx3))

    def classify(self, f_BxhxwxC, *, train: bool):
        return self.head(f_BxhxwxC.mean((1, 2)))

    def __call__(self, x_BxHxWx3, *, train: bool):
        return self.classify(self.features(x_BxHxWx3, train=train), train=train)


def tiny_state(tx: optax.GradientTransformation | None = None, **options) -> TrainState:
    return create_train_state(jax.random.key(0), TinyNet(), tx or optax.sgd(0.1), SHAPE, **options)


def tiny_batch(size: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, *SHAPE[1:]), dtype=np.uint8),
        "label": rng.integers(0, 3, size).astype(np.int32),
        "view": np.zeros(size, np.int32),
    }


def recipe_of(**changes) -> Recipe:
    """Normalisation and no augmentation, unless changed."""
    defaults = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "augmentation": Augmentation("none")}
    return Recipe(**{**defaults, **changes})


def assert_close(first, second, **tolerance) -> None:
    """Leaf by leaf."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), **tolerance),
        first,
        second,
    )


def zeros_like(tree):
    return jax.tree.map(jnp.zeros_like, tree)
