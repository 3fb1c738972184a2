"""Which examples make up which training batch: a pure function of seed and step.

Because nothing is drawn from a running generator, a resumed run sees the batches that an
uninterrupted one would, and every way of delivering pixels (`rcmnet_jax.data.batches`) delivers
the same ones.
"""

import numpy as np

from rcmnet_jax.errors import ConfigError

SAMPLINGS = ("shuffle", "balanced")
# A split that lies on a device is filled up to a multiple of this many rows.
ROWS_MULTIPLE = 64


def filled_up(rows: np.ndarray) -> np.ndarray:
    """Row numbers (N,), and the last once more and again, up to a multiple of `ROWS_MULTIPLE`.

    The folds of a cross-validation differ by an image or two. Filled up their splits are as long as
    each other, and one compiled step serves them all.
    """
    return np.pad(rows, (0, -len(rows) % ROWS_MULTIPLE), mode="edge")


class BatchOrder:
    """The order of training examples.

    ``shuffle``: every epoch is a fresh permutation of all (image, view) pairs; the remainder that
    does not fill a batch is left out of that epoch, a different one each time. ``balanced``: an
    epoch has as many examples, but classes take turns, and within a class images are permuted
    and repeated as needed.

    Args:
      labels: (N,) class of each training image.
      batch_size: B, over all devices.
      seed: of the permutations.
      views: how many views of each image an epoch holds (6 for the paper's expansion).
      sampling: one of `SAMPLINGS`.

    Raises:
      ConfigError: fewer examples than one batch, or an unknown sampling.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        views: int = 1,
        sampling: str = "shuffle",
    ):
        if sampling not in SAMPLINGS:
            raise ConfigError(f"data.sampling {sampling!r} is not one of {', '.join(SAMPLINGS)}")
        if batch_size < 1:
            raise ConfigError(f"train.batch_size must be at least 1, got {batch_size}")
        self.labels = np.asarray(labels)
        self.batch_size = batch_size
        self.views = views
        self.examples_per_epoch = len(self.labels) * views
        self.steps_per_epoch = self.examples_per_epoch // batch_size
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"the train split has {self.examples_per_epoch} examples, fewer than one batch of"
                f" {batch_size}: set a smaller train.batch_size"
            )
        self._seed = seed
        self._sampling = sampling
        self._cached_epoch: tuple[int, np.ndarray] | None = None

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the train split and their views, both (B,) int32, for a step from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        examples = self._epoch(epoch)[position * self.batch_size :][: self.batch_size]
        return (examples // self.views).astype(np.int32), (examples % self.views).astype(np.int32)

    def batches(self, step: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`batch` for ``count`` steps in a row, stacked to (count, B)."""
        rows, views = zip(*(self.batch(step + i) for i in range(count)), strict=True)
        return np.stack(rows), np.stack(views)

    def _epoch(self, epoch: int) -> np.ndarray:
        """Example numbers ``row * views + view`` in the order of this epoch."""
        # One assignment and one read: threads that straddle an epoch may draw twice, never mix.
        cached = self._cached_epoch
        if cached is None or cached[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            draw = self._shuffled if self._sampling == "shuffle" else self._balanced
            cached = self._cached_epoch = (epoch, draw(rng))
        return cached[1]

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.examples_per_epoch)

    def _balanced(self, rng: np.random.Generator) -> np.ndarray:
        classes = np.unique(self.labels)
        turns = -(-self.examples_per_epoch // len(classes))
        columns = []
        for label in classes:
            rows = np.flatnonzero(self.labels == label)
            examples = (rows[:, None] * self.views + np.arange(self.views)).ravel()
            rounds = -(-turns // len(examples))
            columns.append(
                np.concatenate([rng.permutation(examples) for _ in range(rounds)])[:turns]
            )
        return np.stack(columns, axis=1).ravel()[: self.examples_per_epoch]
