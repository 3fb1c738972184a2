"""Decoded pixels on disk: every image is decoded once, then memory-mapped for ever."""

import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL

from rcmnet_jax.data.dataset import CellDataset
from rcmnet_jax.data.preprocess import Preprocess, decode_image
from rcmnet_jax.data.storage import (
    disk_full_is_an_error,
    exclusive_lock,
    make_directory,
    require_space,
    resolve_data_dir,
)
from rcmnet_jax.data.threads import ordered_map, progress_bar
from rcmnet_jax.errors import BadImageError, DataError
from rcmnet_jax.files import write_text

logger = logging.getLogger(__name__)

# Images that one thread decodes before it hands them over for writing.
_BATCH = 16


def load_pixels(
    dataset: CellDataset,
    preprocess: Preprocess,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> np.memmap:
    """All images of a data set at one size, decoded at most once.

    The file is named by a hash of the data, the preprocessing and the Pillow version, so that it
    can never be stale; delete it whenever space is short.

    Args:
        dataset: a prepared data set.
        preprocess: the size, and the rule to reach it.
        data_dir: the cache goes to its folder ``pixels``; the default as in `prepare_dataset`.
        progress: show a progress bar on standard error.
        workers: threads; one for each core when None.

    Returns:
        A read-only memory map, uint8 (N, height, width, 3), record i at position i.

    Raises:
        DataError: the disk is full (with the space it takes), or the built files are damaged.
    """
    path = pixels_path(dataset, preprocess, data_dir=data_dir)
    shape = (len(dataset), preprocess.height, preprocess.width, 3)
    pixels = _open(path, shape)
    if pixels is None:
        with exclusive_lock(path.with_suffix(".lock")):
            pixels = _open(path, shape)
            if pixels is None:
                _decode_all(dataset, preprocess, path, shape, progress=progress, workers=workers)
                pixels = _open(path, shape)
    if pixels is None:
        raise DataError(f"{path} cannot be read back: check the disk, or give another data_dir")
    return pixels


def pixels_path(
    dataset: CellDataset,
    preprocess: Preprocess,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Where `load_pixels` keeps the pixels of a data set; a JSON beside it tells what they are."""
    identity = json.dumps(_identity(dataset, preprocess), sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return resolve_data_dir(data_dir) / "pixels" / f"{key}.npy"


def _identity(dataset: CellDataset, preprocess: Preprocess) -> dict[str, object]:
    return {
        "data_sha256": dataset.data_sha256,
        "preprocess": preprocess.to_dict(),
        "pillow": PIL.__version__,
    }


def _open(path: Path, shape: tuple[int, ...]) -> np.memmap | None:
    """The finished file, or None when it is missing or damaged."""
    try:
        pixels = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if pixels.shape != shape or pixels.dtype != np.uint8:
        return None
    return pixels


def _decode_all(
    dataset: CellDataset,
    preprocess: Preprocess,
    path: Path,
    shape: tuple[int, ...],
    *,
    progress: bool,
    workers: int | None,
) -> None:
    needed = int(np.prod(shape, dtype=np.int64)) + 4096
    what = f"the pixel cache ({shape[0]} images of {shape[1]}x{shape[2]})"
    make_directory(path.parent)
    for left_over in path.parent.glob(f".{path.name}.*"):
        # We hold the lock, so whoever wrote this was killed.
        left_over.unlink()
    require_space(path.parent, needed, what)
    dataset.source()  # opened here, so that the threads share one reader

    def decode(start: int) -> np.ndarray:
        return _decode_batch(dataset, preprocess, range(start, min(start + _BATCH, len(dataset))))

    started = time.perf_counter()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # Plain sequential writes: a memory map on a full disk would end the process (SIGBUS).
        with (
            disk_full_is_an_error(path.parent, needed, what),
            os.fdopen(handle, "wb") as file,
            progress_bar(len(dataset), "decode", enabled=progress) as bar,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for images in ordered_map(decode, range(0, len(dataset), _BATCH), workers=workers):
                file.write(images.data)
                bar.update(len(images))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    seconds = time.perf_counter() - started
    rate = len(dataset) / seconds
    logger.info("decoded %d images in %.1f s, %.0f images/s", len(dataset), seconds, rate)
    facts = {**_identity(dataset, preprocess), "shape": shape, "images_per_second": round(rate, 1)}
    write_text(path.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")


def _decode_batch(dataset: CellDataset, preprocess: Preprocess, indices: range) -> np.ndarray:
    """uint8 (B, height, width, 3)."""
    images = np.empty((len(indices), preprocess.height, preprocess.width, 3), np.uint8)
    for position, index in enumerate(indices):
        try:
            images[position] = decode_image(dataset.read(index), preprocess)
        except BadImageError as error:
            # The audit decoded it, so the built copy is at fault.
            raise DataError(
                f"{dataset.records.file[index]} in {dataset.directory} is damaged ({error}): "
                "delete that folder, and it is built again"
            ) from error
    return images
