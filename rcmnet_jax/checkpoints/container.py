"""The files of a bundle, in one zip or in a folder: read by name, with limits, never extracted.

What is read is a fixed list of names, so a name with ``..`` or a link leads nowhere; nothing is
written to disk and nothing is executed. The zip is stored, not deflated, so that its declared
sizes are its real ones and a small file cannot become a large one.
"""

import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.files import replacing

RECORD, WEIGHTS, GATE, CARD = "bundle.json", "weights.safetensors", "gate.safetensors", "README.md"
# Name -> the largest size in bytes. VGG19 has 140 million parameters, 558 MB.
LIMITS = {RECORD: 16 * 2**20, WEIGHTS: 4 * 2**30, GATE: 256 * 2**20, CARD: 2**20}
# Fixed, so that the same content gives the same bytes.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write_container(path: Path, files: Mapping[str, bytes], *, folder: bool) -> None:
    """Writes the files as one zip, or as a folder.

    Raises:
      CheckpointError: a folder for a bundle exists already.
      UserError: they cannot be written.
    """
    if folder:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise CheckpointError(f"{path} exists already: choose another --out, or remove it")
        # The record last: without it the folder is no bundle.
        for name in sorted(files, key=lambda name: name == RECORD):
            with replacing(path / name) as temporary:
                temporary.write_bytes(files[name])
        return
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, TIMESTAMP), data)


class Container:
    """The files of a bundle, open for reading.

    Args:
      path: a zip file or a folder.

    Raises:
      CheckpointError: it is neither, or holds what no bundle holds.
    """

    def __init__(self, path: Path):
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._folder: int | None = None
        try:
            if path.is_dir():
                self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                self.names = set(os.listdir(path)) & LIMITS.keys()
            else:
                self._archive = zipfile.ZipFile(path)
                self.names = self._check_entries(self._archive)
        except CheckpointError:
            self.close()
            raise
        # NotImplementedError is what zipfile raises for versions and compressions it does not know.
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            self.close()
            raise CheckpointError(
                f"{path} cannot be opened as a bundle ({error}): download or export it again"
            ) from error

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the zip file or the folder; nothing can be read after it."""
        if self._archive is not None:
            self._archive.close()
        if self._folder is not None:
            os.close(self._folder)

    def read(self, name: str) -> bytes:
        """One file of `LIMITS`.

        Raises:
          CheckpointError: it is not there, too large, or damaged.
        """
        limit = LIMITS[name]
        if name not in self.names:
            raise CheckpointError(f"{self.path} lacks {name}: download or export it again")
        try:
            data = self._read_entry(name, limit) if self._archive else self._read_file(name, limit)
        except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
            raise CheckpointError(
                f"{name} in {self.path} is damaged ({error}): download or export it again"
            ) from error
        if len(data) > limit:
            raise CheckpointError(
                f"{name} in {self.path} is larger than {limit} bytes: this is no bundle"
            )
        return data

    def _read_entry(self, name: str, limit: int) -> bytes:
        assert self._archive is not None
        with self._archive.open(name) as entry:
            return entry.read(limit + 1)

    def _read_file(self, name: str, limit: int) -> bytes:
        # Not through a link, which could lead out of the folder.
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._folder)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError("not a regular file")
            return file.read(limit + 1)

    def _check_entries(self, archive: zipfile.ZipFile) -> set[str]:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        odd = sorted(set(names) - LIMITS.keys())
        if odd or len(set(names)) != len(names):
            what = f"it holds {odd[0]!r}" if odd else "a name occurs twice"
            archive.close()
            raise CheckpointError(f"{self.path} is no bundle: {what}; export it again")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                archive.close()
                raise CheckpointError(
                    f"{self.path} was compressed or encrypted after it was written: export it again"
                )
        return set(names)
