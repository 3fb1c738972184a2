"""One process at a time trains in a folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from rcmnet_jax.errors import UserError


@contextlib.contextmanager
def locked_workdir(workdir: Path) -> Iterator[None]:
    """Creates the folder and keeps other runs out of it.

    The kernel releases the lock when the process ends, however it ends. Of several processes of
    one run the first holds it.

    Raises:
      UserError: the folder cannot be written, or another process trains in it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise UserError(
            f"cannot write to {workdir} ({error.strerror}): choose another --workdir"
        ) from error
    with file:
        if jax.process_index():
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(
                f"{workdir} is in use by another run (process {owner}):"
                " wait for it, or choose another --workdir"
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot lock {workdir} ({error.strerror}): choose a --workdir on a local disk"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
