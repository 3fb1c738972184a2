"""The pixel cache: the right pixels, once, and a full disk told in gigabytes."""

import errno
import threading

import numpy as np
import pytest

from rcmnet_jax.data import cache, storage
from rcmnet_jax.data.cache import load_pixels, pixels_path
from rcmnet_jax.data.dataset import prepare_dataset
from rcmnet_jax.data.preprocess import Preprocess, decode_image
from rcmnet_jax.errors import DataError

SIZE = Preprocess(16, 12)


@pytest.fixture
def dataset(class_folder, tmp_path):
    root = class_folder({"a": 20, "b": 21})
    return prepare_dataset("cell_folder", root, tmp_path / "data", progress=False)


def test_pixels_are_those_of_the_one_path(dataset, tmp_path):
    pixels = load_pixels(dataset, SIZE, data_dir=tmp_path / "data", progress=False, workers=3)
    assert isinstance(pixels, np.memmap)
    assert pixels.shape == (41, 16, 12, 3)
    assert not pixels.flags.writeable
    for i in (0, 15, 16, 40):
        np.testing.assert_array_equal(pixels[i], decode_image(dataset.read(i), SIZE))


def test_decoded_once(dataset, tmp_path, monkeypatch):
    first = load_pixels(dataset, SIZE, data_dir=tmp_path, progress=False)
    monkeypatch.setattr(cache, "decode_image", None)
    second = load_pixels(dataset, SIZE, data_dir=tmp_path, progress=False)
    np.testing.assert_array_equal(first, second)


def test_key_follows_data_size_and_rule(dataset, class_folder, tmp_path, monkeypatch):
    other = prepare_dataset(
        "cart", class_folder({"a": 2, "b": 3}, "other"), tmp_path / "data", progress=False
    )
    paths = {
        pixels_path(dataset, SIZE, data_dir=tmp_path),
        pixels_path(dataset, Preprocess(12, 16), data_dir=tmp_path),
        pixels_path(other, SIZE, data_dir=tmp_path),
    }
    monkeypatch.setattr("rcmnet_jax.data.preprocess.PREPROCESS_VERSION", 2)
    paths.add(pixels_path(dataset, SIZE, data_dir=tmp_path))
    assert len(paths) == 4


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_damaged_cache_is_made_again(dataset, tmp_path, size):
    first = np.array(load_pixels(dataset, SIZE, data_dir=tmp_path, progress=False))
    path = pixels_path(dataset, SIZE, data_dir=tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    again = load_pixels(dataset, SIZE, data_dir=tmp_path, progress=False)
    np.testing.assert_array_equal(first, again)


def test_two_at_once(dataset, tmp_path):
    results = []

    def load():
        results.append(load_pixels(dataset, SIZE, data_dir=tmp_path, progress=False))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    np.testing.assert_array_equal(results[0], results[2])
    assert len(list((tmp_path / "pixels").glob("*.npy"))) == 1


def test_disk_too_small_beforehand(dataset, tmp_path, monkeypatch):
    usage = storage.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"41 images of 16x12\) needs 0.00 GB .*RCMNET_DATA_DIR"):
        load_pixels(dataset, SIZE, data_dir=tmp_path, progress=False)


def test_disk_fills_up_on_the_way(dataset, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(DataError, match=r"needs .* GB"):
        load_pixels(dataset, SIZE, data_dir=tmp_path, progress=False)
    assert [path.suffix for path in (tmp_path / "pixels").iterdir()] == [".lock"]
