"""Writing files whole or not at all, and checking beforehand that they can be written."""

import os
import tempfile
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
    """Checks that files can be written to a folder, before the work whose results go there.

    Args:
        folder: may not exist yet.
        option: the command-line option that names it, for the message.

    Raises:
        UserError: it, or a folder above it, is a file or may not be written to.
    """
    existing = _nearest_existing(folder)
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, no folder: choose another {option}")
    if not can_write(folder):
        raise UserError(f"{existing} may not be written to: choose another {option}")


def can_write(folder: Path) -> bool:
    """Whether a file can be written to a folder that exists or can be made; tried by writing one.

    Permissions alone do not say: a disk may be full, read-only or of another user's namespace.
    """
    try:
        with tempfile.TemporaryFile(dir=_nearest_existing(folder)) as file:
            file.write(b"0")
            file.flush()
    except OSError:
        return False
    return True


def _nearest_existing(folder: Path) -> Path:
    folder = folder.absolute()
    # `Path.exists` raises for a folder inside one that may not be entered.
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))
