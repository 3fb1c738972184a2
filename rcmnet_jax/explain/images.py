"""Images to explain: finding, choosing and reading them."""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from rcmnet_jax.data.preprocess import Preprocess, decode_image, inspect_and_decode
from rcmnet_jax.data.sources.folders import walk
from rcmnet_jax.data.sources.source_file import MAX_FILE_BYTES, may_be_image
from rcmnet_jax.data.threads import ordered_map
from rcmnet_jax.errors import BadImageError, DataError


@dataclasses.dataclass(frozen=True)
class CellImage:
    """One readable image file.

    Attributes:
      file: its path, as given or found.
      true_class: its class by folder or split, None if unknown.
      data: the bytes.
      size: (width, height) in pixels, upright.
    """

    file: str
    true_class: str | None
    data: bytes = dataclasses.field(repr=False)
    size: tuple[int, int]

    def pixels(self, preprocess: Preprocess) -> np.ndarray:
        """(H, W, 3) uint8, decoded and preprocessed."""
        return decode_image(self.data, preprocess)


@dataclasses.dataclass(frozen=True)
class Reference:
    """An image that is not read yet: its name, its class if known, and a reader of its bytes."""

    file: str
    true_class: str | None
    read: Callable[[], bytes] = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class ReadImages:
    """Readable images, and (file, reason) of the unreadable ones."""

    images: tuple[CellImage, ...]
    unreadable: tuple[tuple[str, str], ...]


def find_images(paths: Iterable[str | Path], class_names: Collection[str]) -> list[Reference]:
    """Image files among the given paths; folders are searched as prediction does.

    Args:
      paths: files and folders. A file given by its own path is taken whatever its name.
      class_names: an image whose folder has one of these names belongs to that class.

    Raises:
      DataError: a path does not exist, or there is no image.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            names = (name for name, _, _ in walk(path)[0])
            files += [path / n for n in sorted(names) if may_be_image(n)]
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{path} does not exist: give image files or folders of them")
    if not files:
        raise DataError(f"no image in {', '.join(map(str, paths))}: name a folder that has some")
    return [
        Reference(
            str(file),
            file.parent.name if file.parent.name in class_names else None,
            functools.partial(_read_file, file),
        )
        for file in dict.fromkeys(files)
    ]


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadImageError("the file is too large for an image of one cell")
    return path.read_bytes()


def choose(references: Sequence[Reference], limit: int, *, seed: int = 0) -> list[Reference]:
    """Draws at most `limit` images at random, as evenly over the classes as possible.

    The draw does not depend on the network, so images are not picked for their maps.

    Args:
      references: all images.
      limit: how many; 0 takes all, in their order.
      seed: of the draw.
    """
    if limit <= 0 or limit >= len(references):
        return list(references)
    shuffled = np.random.default_rng(seed).permutation(len(references))
    by_class: dict[str | None, list[int]] = defaultdict(list)
    for index in shuffled.tolist():
        by_class[references[index].true_class].append(index)
    turns = [(turn, index) for rows in by_class.values() for turn, index in enumerate(rows)]
    taken = sorted(index for _, index in sorted(turns)[:limit])
    return [references[index] for index in taken]


def read_images(references: Sequence[Reference], preprocess: Preprocess) -> ReadImages:
    """Reads and decodes images, and lists those that cannot be read.

    Raises:
      DataError: none can be read.
    """
    images: list[CellImage] = []
    unreadable: list[tuple[str, str]] = []
    for reference, result in zip(
        references, ordered_map(lambda r: _read(r, preprocess), references), strict=True
    ):
        if isinstance(result, CellImage):
            images.append(result)
        else:
            unreadable.append((reference.file, result))
    if not images:
        file, reason = unreadable[0] if unreadable else ("", "there are none")
        raise DataError(
            f"none of {len(references)} images can be read; the first, {file}: {reason}"
        )
    return ReadImages(tuple(images), tuple(unreadable))


def _read(reference: Reference, preprocess: Preprocess) -> CellImage | str:
    """The image, or why it cannot be read."""
    try:
        data = reference.read()
        facts, _ = inspect_and_decode(data, preprocess)
    except BadImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return CellImage(reference.file, reference.true_class, data, (facts.width, facts.height))
