"""Files that are either whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rcmnet_jax.errors import UserError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it if the block succeeds.

    A reader, or a run killed half-way, sees the old file or the new one, never a part.

    Args:
        path: the file to write; missing folders are made.

    Yields:
        The path to write to, with the same suffix (matplotlib picks the format by it).

    Raises:
        UserError: the file cannot be written (disk full, no permission, a file for a folder).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder"
        ) from error
