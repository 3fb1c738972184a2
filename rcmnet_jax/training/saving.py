"""The two series of checkpoints of a run: the newest training states, and the best weights."""

import contextlib
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rcmnet_jax.checkpoints.store import CheckpointStore
from rcmnet_jax.training.progress import Progress
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.types import Variables


class Saver:
    """Writes what a run needs to go on, and what it is for.

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
        """Whether the last save is at least so long ago."""
        return time.monotonic() - self._saved_at >= seconds

    def remember_best(self, step: int, variables: Variables, meta: dict[str, Any]) -> None:
        """Keeps the best weights so far, to be written with the next training state."""
        # A copy, because the next step gives the state's buffers away.
        self._waiting = (step, jax.tree.map(jnp.copy, dict(variables)), meta)

    def save(self, state: TrainState, progress: Progress, meta: dict[str, Any]) -> None:
        """Writes the best weights, then starts to write the training state."""
        if self._waiting is not None:
            step, variables, best_meta = self._waiting
            self.best.save(step, variables, progress={}, meta=best_meta)
            # On disk before the training state that counts on it.
            self.best.wait()
            self._waiting = None
        # A copy, because the next step gives the state's buffers away while this is written.
        state = jax.tree.map(jnp.copy, state)
        self.last.save(progress.step, state, progress=progress.to_dict(), meta=meta)
        self._saved_at = time.monotonic()

    def finish(self, state: TrainState, progress: Progress, meta: dict[str, Any]) -> None:
        """Saves unless this step is saved already, and waits until it is on disk."""
        if progress.step not in self.last.steps:
            self.save(state, progress, meta)
        self.last.wait()
