"""Disks that are full or read-only, reported in one line."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from rcmnet_jax.errors import UserError


@contextlib.contextmanager
def disk_errors_as_user_errors(workdir: Path) -> Iterator[None]:
    """Turns a full or read-only disk under the logs and figures of a run into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space and run the same command to go on"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "make it writable, or choose another --workdir"
        else:
            raise
        where = error.filename or workdir
        raise UserError(f"cannot write {where} ({error.strerror}): {remedy}") from error
