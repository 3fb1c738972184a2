"""The checkpoints of one run: the newest few to go on from, the best one to use.

``last/<step>`` holds the whole training state, ``best/<step>`` the variables for evaluation. Each
is one Orbax checkpoint of three items: ``state`` (arrays), ``progress`` (position in the data,
sums of the running epoch, best score so far) and ``meta`` (config, classes, preprocessing,
provenance). A SHA-256 over all arrays is stored beside them, so that a flipped bit is found when
a checkpoint is opened and the one before it is taken instead.
"""

import contextlib
import dataclasses
import errno
import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.types import PyTree

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Saved:
    """One checkpoint as read back."""

    step: int
    state: PyTree
    progress: dict[str, Any]
    meta: dict[str, Any]


class CheckpointStore:
    """Saves and restores one series of checkpoints.

    Saving is asynchronous and atomic: a checkpoint is either whole under its step number or not
    there, whenever the process is killed.

    Args:
      directory: of the series, e.g. ``workdir/checkpoints/last``.
      keep: how many of the newest to keep.
    """

    def __init__(self, directory: Path, *, keep: int = 2):
        # Orbax refuses relative paths.
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with _readable_errors(self.directory, "open"):
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: PyTree, *, progress: dict, meta: dict) -> None:
        """Starts saving; returns once the arrays are copied.

        Raises:
          CheckpointError: this save or the one before it could not be written.
        """
        progress = {**progress, "sha256": tree_sha256(state)}
        with _readable_errors(self.directory, "save"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave(progress),
                    meta=ocp.args.JsonSave(meta),
                ),
            )

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        with _readable_errors(self.directory, "save"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the threads."""
        self.wait()
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Step numbers of the checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def restore(self, template: PyTree) -> Saved | None:
        """The newest checkpoint that is whole.

        One that cannot be read, or whose arrays are not those that were saved, is set aside under
        ``corrupt-<step>`` with a warning, and the one before it is taken.

        Args:
          template: a tree of the same structure, of arrays or `jax.ShapeDtypeStruct` with
            shardings; the arrays are placed as it says, whatever device they were saved from.

        Returns:
          The checkpoint, or None if there is none.

        Raises:
          CheckpointError: there are checkpoints, and none is whole.
        """
        steps = self.steps
        for step in reversed(steps):
            try:
                return self._restore_step(step, template)
            except _Corrupt as error:
                logger.warning(
                    "checkpoint %s is damaged (%s): set aside as corrupt-%d",
                    self.directory / str(step),
                    error,
                    step,
                )
                self._set_aside(step)
        if steps:
            raise CheckpointError(
                f"none of the {len(steps)} checkpoints in {self.directory} can be read:"
                " they are kept as corrupt-*; start again in another --workdir"
            )
        return None

    def read_json(self, step: int, item: str) -> dict[str, Any]:
        """The ``progress`` or ``meta`` of one checkpoint, without its arrays."""
        with _readable_errors(self.directory, "read"):
            args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
            return self._manager.restore(step, args=args)[item]

    def _restore_step(self, step: int, template: PyTree) -> Saved:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        try:
            items = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract),
                    progress=ocp.args.JsonRestore(),
                    meta=ocp.args.JsonRestore(),
                ),
            )
        # What a damaged file raises depends on which layer met the damage first: JSON, zarr,
        # tensorstore or Orbax; they share no narrower base.
        except (ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
            raise _Corrupt(_first_line(error)) from error
        progress = dict(items["progress"])
        if progress.pop("sha256", None) != tree_sha256(items["state"]):
            raise _Corrupt("its arrays are not those that were saved")
        return Saved(step, items["state"], progress, dict(items["meta"]))

    def _set_aside(self, step: int) -> None:
        source = self.directory / str(step)
        target = self.directory.parent / f"corrupt-{self.directory.name}-{step}"
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)
        self._manager.reload()


def tree_sha256(tree: PyTree) -> str:
    """SHA-256 over paths, types, shapes and bytes of all leaves, in the order of their paths."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class _Corrupt(Exception):
    """A checkpoint that is there but not whole."""


@contextlib.contextmanager
def _readable_errors(directory: Path, action: str) -> Iterator[None]:
    """Turns what Orbax raises on a full or read-only disk into one line with the remedy."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        text = str(error)
        if _is(error, errno.ENOSPC) or "No space left" in text or "RESOURCE_EXHAUSTED" in text:
            remedy = "the disk is full: free some space and run the same command to go on"
        elif _is(error, errno.EACCES, errno.EROFS) or "Permission denied" in text:
            remedy = "it is not writable: choose another --workdir"
        else:
            remedy = _first_line(error)
        raise CheckpointError(f"cannot {action} checkpoint in {directory}: {remedy}") from error


def _is(error: BaseException, *codes: int) -> bool:
    return isinstance(error, OSError) and error.errno in codes


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
