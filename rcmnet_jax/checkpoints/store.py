"""The checkpoints of one run: the newest few to go on from, the best ones to use.

``last/<step>`` holds the whole training state, ``best/<step>`` the variables for evaluation. Each
is one Orbax checkpoint of three items: ``state`` (arrays), ``progress`` (position in the data,
sums of the running epoch, best score so far) and ``meta`` (config, classes, preprocessing,
provenance). A SHA-256 over all arrays and one over the two records are stored beside them, so that
a flipped bit is found when a checkpoint is opened and the one before it is taken instead.
"""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from rcmnet_jax.checkpoints.digest import tree_sha256
from rcmnet_jax.data.sources.source_file import is_text
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.types import PyTree

logger = logging.getLogger(__name__)
# What a damaged file raises depends on which layer met the damage first: JSON, zarr, tensorstore or
# Orbax, which turns some of it into a bare Exception.
DAMAGE = Exception
# No space, quota exceeded, file too large: tensorstore gives their text alone.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Orbax reads the wall clock for its timeouts, and gives a save up when that is set forward.
NO_TIMEOUT = 10**9


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
      read_only: leave the folder as it is, because a run may be writing in it.
      only_step: see no checkpoint but this one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 2,
        read_only: bool = False,
        only_step: int | None = None,
    ):
        # Orbax refuses relative paths.
        self.directory = Path(directory).absolute()
        self._read_only, self._only_step = read_only, only_step
        self._first_save = True
        self._resources = contextlib.ExitStack()
        if not read_only:
            with _readable_errors(self.directory, "open"):
                self.directory.mkdir(parents=True, exist_ok=True)
        orbax_directory = self._resources.enter_context(_named_plainly(self.directory))
        # Orbax's own read_only warns on every opening. What a killed save left is removed.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            cleanup_tmp_directories=not read_only,
            async_options=ocp.options.AsyncOptions(
                timeout_secs=NO_TIMEOUT,
                # Waiting for them has a timeout of its own, which nothing can set.
                create_directories_asynchronously=False,
            ),
        )
        with _readable_errors(self.directory, "open"):
            self._manager = ocp.CheckpointManager(orbax_directory, options=options)

    def save(self, step: int, state: PyTree, *, progress: dict, meta: dict) -> None:
        """Starts saving; returns once the arrays are copied.

        The first save of a store is waited for and read back, so that no run trains for hours
        towards checkpoints that cannot be opened.

        Raises:
          CheckpointError: this save or the one before it could not be written, or the first one
            cannot be read back.
        """
        self.wait()
        self._require_space(sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        digests = {"sha256": tree_sha256(state), "records_sha256": _records_sha256(progress, meta)}
        progress = {**progress, **digests}
        with _readable_errors(self.directory, "save"):
            written = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave(progress),
                    meta=ocp.args.JsonSave(meta),
                ),
            )
        # Orbax passes over a step that is not after the newest one without a word.
        assert written, f"step {step} is not after {self.steps[-1]} in {self.directory}"
        if self._first_save:
            self.wait()
            self._read_back(step, state)
            self._first_save = False

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        with _readable_errors(self.directory, "save"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the threads."""
        with self._resources:
            try:
                self.wait()
            finally:
                with _readable_errors(self.directory, "save"):
                    self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Step numbers of the checkpoints, oldest first."""
        steps = sorted(self._manager.all_steps())
        return [step for step in steps if self._only_step in (None, step)]

    def drop_after(self, step: int) -> None:
        """Deletes what was saved after a step, by a run that is taken up again from there."""
        with _readable_errors(self.directory, "delete"):
            for later in [s for s in self.steps if s > step]:
                self._manager.delete(later)

    def restore(self, template: PyTree) -> Saved | None:
        """The newest checkpoint that is whole.

        Where one cannot be read, or its content is not what was saved, the one before it is taken
        with a warning, and the damaged one is set aside as ``corrupt-<series>-<step>``.

        Args:
          template: a tree of the same structure, of arrays or `jax.ShapeDtypeStruct` with
            shardings; the arrays are placed as it says, whatever device they were saved from.

        Returns:
          The checkpoint, or None if there is none.

        Raises:
          CheckpointError: there are checkpoints, and none is whole.
        """
        steps = self.steps
        damaged: dict[int, _Corrupt] = {}
        for step in reversed(steps):
            try:
                saved = self._restore_step(step, template)
            except _Corrupt as error:
                damaged[step] = error
                continue
            for bad, why in damaged.items():
                logger.warning(
                    "checkpoint %s is damaged (%s): going back to step %d",
                    self.directory / str(bad),
                    why,
                    step,
                )
                self._set_aside(bad)
            return saved
        if damaged:
            # They stay where they are, or the same command would start from scratch over them.
            raise CheckpointError(
                f"none of the {len(steps)} checkpoints in {self.directory} can be read"
                f" ({damaged[steps[-1]]}): restore them from a copy, or train in another --workdir"
            )
        return None

    def metas(self) -> Iterator[dict[str, Any]]:
        """Each ``meta`` that can be read, the newest first; no arrays are touched.

        They are not proved to be what was saved: only `restore` does that.
        """
        for step in reversed(self.steps):
            try:
                args = ocp.args.Composite(meta=ocp.args.JsonRestore())
                meta = dict(self._manager.restore(step, args=args)["meta"])
            except DAMAGE:
                continue
            yield meta

    def newest_meta(self) -> dict[str, Any] | None:
        """The first of `metas`, or None."""
        return next(self.metas(), None)

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
            progress, meta = dict(items["progress"]), dict(items["meta"])
        except DAMAGE as error:
            raise _Corrupt(_first_line(error)) from error
        if progress.pop("sha256", None) != tree_sha256(items["state"]):
            raise _Corrupt("its arrays are not those that were saved")
        if progress.pop("records_sha256", None) != _records_sha256(progress, meta):
            raise _Corrupt("its records are not those that were saved")
        return Saved(step, items["state"], progress, meta)

    def _read_back(self, step: int, state: PyTree) -> None:
        """Restores what was just saved, and compares."""
        try:
            self._restore_step(step, state)
        except _Corrupt as error:
            with _readable_errors(self.directory, "delete"):
                self._manager.delete(step)
            raise CheckpointError(
                f"the checkpoint just written to {self.directory} cannot be read back ({error}):"
                " choose a --workdir on another disk, or under a plainer name"
            ) from error

    def _require_space(self, needed: int) -> None:
        """Before the first byte, since Orbax cannot stop a failing save without a din."""
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise CheckpointError(
                f"cannot save checkpoint in {self.directory}: the disk is full: free some space"
                f" ({needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are left) and run the"
                " same command to go on"
            )

    def _set_aside(self, step: int) -> None:
        if self._read_only:
            return
        source = self.directory / str(step)
        target = self.directory.parent / f"corrupt-{self.directory.name}-{step}"
        if jax.process_index() == 0:
            shutil.rmtree(target, ignore_errors=True)
            source.rename(target)
        if jax.process_count() > 1:
            # All have read it, and found the same, before they look at the folder again.
            multihost_utils.sync_global_devices(str(target))
        self._manager.reload()


def _records_sha256(progress: dict[str, Any], meta: dict[str, Any]) -> str:
    """SHA-256 over the JSON of both records."""
    return hashlib.sha256(json.dumps([progress, meta], sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _named_plainly(directory: Path) -> Iterator[Path]:
    """A name for a folder that Orbax, which looks for its files with `glob`, takes literally.

    A link in the folder for temporary files where the path is not plain.
    """
    if not directory.is_dir() or _is_plain(str(directory)):
        yield directory
        return
    remedy = "choose a --workdir of plain letters and digits"
    if jax.process_count() > 1:
        # Processes compare the paths that they write to, and each would have its own link.
        raise CheckpointError(f"several hosts cannot save in {directory}: {remedy}")
    with tempfile.TemporaryDirectory(prefix="rcmnet-") as folder:
        link = Path(folder, "checkpoints")
        if not _is_plain(folder):
            raise CheckpointError(f"cannot save in {directory}: {remedy}")
        try:
            link.symlink_to(directory, target_is_directory=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot save in {directory} ({error.strerror}): {remedy}"
            ) from error
        yield link


def _is_plain(path: str) -> bool:
    """Whether a path is UTF-8 and holds nothing that Orbax's file names take for syntax."""
    return glob.escape(path) == path and "\\" not in path and is_text(path)


class _Corrupt(Exception):
    """A checkpoint that is there but not whole."""


@contextlib.contextmanager
def _readable_errors(directory: Path, action: str) -> Iterator[None]:
    """Turns what Orbax raises on a full or read-only disk into one line with the remedy."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        text = str(error)
        if _is(error, *FULL) or any(os.strerror(code) in text for code in FULL):
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
