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


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text, whole or not at all; file names in it need not be UTF-8.

    Raises:
        UserError: as `replacing` does.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def require_folder(folder: Path, option: str = "--out") -> None:
    """Asks whether files can be written to a folder, before the work whose results go there.

    Args:
        folder: there already, or to be made later.
        option: what chose it, for the message.

    Raises:
        UserError: it, or a folder above it, is a file or may not be written to.
    """
    folder = folder.absolute()
    # `Path.exists` raises where one may not look.
    existing = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, no folder: choose another {option}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{existing} may not be written to: choose another {option}")
