"""Where prepared data live on disk: the data folder, locks, free space."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rcmnet_jax.errors import DataError

DATA_DIR_VARIABLE = "RCMNET_DATA_DIR"


def resolve_data_dir(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder for prepared data: the argument, else $RCMNET_DATA_DIR, else the user's cache.

    Args:
        data_dir: a folder, created when something is written to it.

    Returns:
        An absolute path.
    """
    if data_dir is None:
        data_dir = os.environ.get(DATA_DIR_VARIABLE) or "~/.cache/rcmnet_jax/data"
    try:
        return Path(data_dir).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(
            f"{data_dir}: there is no home folder here; set {DATA_DIR_VARIABLE} to a folder for"
            " prepared data"
        ) from error


def make_directory(directory: Path) -> None:
    """Creates a folder and its parents.

    Raises:
        DataError: the folder cannot be created, with the setting to change.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot create {directory} ({error.strerror}): "
            f"give another data_dir, or set {DATA_DIR_VARIABLE}"
        ) from error


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Holds a lock file, waiting for whoever has it.

    The kernel drops the lock when its process ends, however it ends, so a killed build never
    blocks the next one. The empty file stays: removing it would let two processes lock two
    different files of one name.

    Raises:
        DataError: the folder cannot be written, or its file system has no locks.
    """
    make_directory(path.parent)
    try:
        # Closing the file is what releases the lock.
        file = path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise DataError(
            f"cannot lock {path} ({error.strerror}): give a data_dir on a local disk that you "
            f"may write to, or set {DATA_DIR_VARIABLE}"
        ) from error
    with file:
        yield


def require_space(directory: Path, needed: int, what: str) -> None:
    """Checks for room before a large write.

    Args:
        directory: an existing folder on the disk to be written.
        needed: bytes about to be written.
        what: names the data in the message.

    Raises:
        DataError: less than `needed` bytes are free.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise DataError(_disk_full_message(directory, needed, free, what))


@contextlib.contextmanager
def disk_full_is_an_error(directory: Path, needed: int, what: str) -> Iterator[None]:
    """Turns a disk that fills up during a write into a `DataError` that says how much it takes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(directory).free
        raise DataError(_disk_full_message(directory, needed, free, what)) from error


def _disk_full_message(directory: Path, needed: int, free: int, what: str) -> str:
    return (
        f"{what} needs {needed / 1e9:.2f} GB in {directory}, where {free / 1e9:.2f} GB are free: "
        f"free some space, give another data_dir, or set {DATA_DIR_VARIABLE}"
    )
