"""What a run saves: where it stands, its newest training states, and its best weights."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rcmnet_jax.checkpoints.store import CheckpointStore
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.types import PyTree, Variables


@dataclasses.dataclass
class Progress:
    """Position in the data, sums of the running epoch, and the best score; saved as JSON.

    Attributes:
      step: optimizer steps done.
      epoch: epochs finished.
      accounted: steps whose metrics are in the sums; trails ``step`` by what is still running.
      loss_sum: of the batches of the running epoch.
      correct: training images classified right in the running epoch, as they were augmented.
      seen: training images of the running epoch.
      best: metric, value, step and epoch of the best validation.
      epochs_without_better: since then.
    """

    step: int = 0
    epoch: int = 0
    accounted: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best: dict[str, Any] | None = None
    epochs_without_better: int = 0

    def add(self, *, loss: float, correct: int, batch: int) -> None:
        """Adds one step's metrics to the sums."""
        self.accounted += 1
        self.loss_sum += loss * batch
        self.correct += correct
        self.seen += batch

    def epoch_means(self) -> dict[str, float]:
        """Training loss and accuracy of the running epoch."""
        return {
            "train_loss": self.loss_sum / self.seen,
            "train_accuracy": self.correct / self.seen,
        }

    def end_epoch(self) -> None:
        """Starts the next epoch's sums."""
        self.epoch += 1
        self.loss_sum, self.correct, self.seen = 0.0, 0, 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """The inverse of `to_dict`."""
        return cls(**values)


class Saver:
    """The two series of checkpoints of a run: training states to resume from, weights to use.

    Args:
      directory: gets ``last/`` and ``best/``.
      keep: training states to keep.
      resources: closes the stores.
    """

    def __init__(self, directory: Path, *, keep: int, resources: contextlib.ExitStack):
        def open_store(name: str, keep: int) -> CheckpointStore:
            store = CheckpointStore(directory / name, keep=keep)
            return resources.enter_context(contextlib.closing(store))

        self.last = open_store("last", keep)
        # Two, because after a kill the newer one may be ahead of the newest training state.
        self.best = open_store("best", 2)
        self._waiting: tuple[int, Variables, dict[str, Any]] | None = None
        self._saved_at = time.monotonic()

    def is_due(self, seconds: float) -> bool:
        """Whether the last save is at least this long ago."""
        return time.monotonic() - self._saved_at >= seconds

    def remember_best(self, step: int, variables: Variables, meta: dict[str, Any]) -> None:
        """Keeps the best weights so far, to be written with the next training state."""
        self._waiting = (step, _copy(dict(variables)), meta)

    def save(self, state: TrainState, progress: Progress, meta: dict[str, Any]) -> None:
        """Writes the best weights, then starts to write the training state."""
        if self._waiting is not None:
            step, variables, best_meta = self._waiting
            self.best.save(step, variables, progress={}, meta=best_meta)
            # On disk before the training state that counts on it.
            self.best.wait()
            self._waiting = None
        self.last.save(progress.step, _copy(state), progress=progress.to_dict(), meta=meta)
        self._saved_at = time.monotonic()

    def finish(self, state: TrainState, progress: Progress, meta: dict[str, Any]) -> None:
        """Saves unless this step is saved already, and waits until it is on disk."""
        if progress.step not in self.last.steps:
            self.save(state, progress, meta)
        self.last.wait()


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    """A copy in one call: the next step gives the state's own buffers away."""
    return jax.tree.map(jnp.copy, tree)
