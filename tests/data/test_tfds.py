"""The data sets as TFDS users know them: by name, with splits, without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rcmnet_jax.data import decode_image, make_split, prepare_dataset
from rcmnet_jax.errors import DataError
from tests.data.conftest import image_bytes

SIZES = {"train": 14, "validation": 2, "test": 4}


@pytest.fixture
def root(class_folder):
    return class_folder({"a": 10, "b": 10})


def test_a_builder_has_the_splits_of_the_library(root, tmp_path):
    builder = tfds.builder("cell_folder", source=root, data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == SIZES
    dataset = prepare_dataset("cell_folder", root, tmp_path / "data", progress=False)
    ours = make_split(**dataset.split_columns)
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        files = [element["file"].decode() for element in builder.as_data_source(name)]
        assert files == ours.files[ours.indices(part)].tolist()


def test_what_an_element_holds(root, tmp_path):
    test = tfds.data_source(
        "cell_folder",
        split="test",
        data_dir=tmp_path,
        builder_kwargs={"source": root, "seed": 1},
    )
    assert len(test) == 4
    for element in test:
        path = root / element["file"].decode()
        assert element["image"].dtype == np.uint8
        np.testing.assert_array_equal(element["image"], decode_image(path.read_bytes()))
        assert ["a", "b"][element["label"]] == path.parent.name
        assert (element["width"], element["height"]) == (20, 24)
        assert element["patient"] == b""


def test_a_prepared_folder_opens_without_its_source(root, tmp_path):
    builder = tfds.builder("cart", source=root, data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    again = tfds.builder_from_directory(builder.data_dir)
    assert again.info.features["label"].names == ["a", "b"]
    assert len(again.as_data_source("train")) == SIZES["train"]


@pytest.mark.parametrize(
    ("format", "mode"),
    [("TIFF", "RGB"), ("PNG", "L"), ("PNG", "P"), ("JPEG", "CMYK"), ("BMP", "L")],
)
def test_images_that_tfds_cannot_read_are_stored_as_we_decode_them(root, tmp_path, format, mode):
    path = root / "a" / f"odd.{format.lower()}"
    path.write_bytes(image_bytes(77, format=format, mode=mode))
    builder = tfds.builder("cell_folder", source=root, data_dir=tmp_path, val_fraction=0.0)
    builder.download_and_prepare()
    assert set(builder.info.splits) == {"train", "test"}
    found = {e["file"].decode(): e for split in builder.as_data_source().values() for e in split}
    image = found[f"a/{path.name}"]["image"]
    np.testing.assert_array_equal(image, decode_image(path.read_bytes()))


def test_each_source_and_seed_has_a_folder_of_its_own(root, tmp_path):
    folders = {
        tfds.builder("cell_folder", source=root, data_dir=tmp_path, **options).data_dir
        for options in ({}, {"seed": 1}, {"test_fraction": 0.5}, {"group_by": "image"})
    }
    assert len(folders) == 4


def test_a_builder_keeps_patients_whole(root, tmp_path):
    lines = [f"{c}/{c}_{i:03d}.jpg,{c},p{i}" for c in "ab" for i in range(10)]
    (root / "m.csv").write_text("\n".join(["file,label,patient", *lines]))
    builder = tfds.builder("cell_folder", source=root / "m.csv", data_dir=tmp_path)
    builder.download_and_prepare()
    parts = [{e["patient"] for e in builder.as_data_source(name)} for name in SIZES]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10


def test_wrong_classes_are_named(root, tmp_path):
    # TFDS wraps what a constructor raises.
    with pytest.raises(RuntimeError, match="not the eight-class PBC set"):
        tfds.builder("pbc", source=root, data_dir=tmp_path)


def test_parts_beyond_what_tfds_can_write(root, tmp_path, monkeypatch):
    monkeypatch.setattr("rcmnet_jax.data.builders.MAX_SPLIT_BYTES", 1000)
    builder = tfds.builder("cell_folder", source=root, data_dir=tmp_path)
    with pytest.raises(DataError, match=r"train part is beyond 1 GB.*prepare_dataset"):
        builder.download_and_prepare()


@pytest.mark.parametrize("first", ["rcmnet_jax.data", "tensorflow_datasets"])
def test_importing_the_data_room_registers_the_names(first):
    code = (
        f"import {first}, rcmnet_jax.data, tensorflow_datasets as tfds\n"
        "print([tfds.builder_cls(name).name for name in rcmnet_jax.data.DATASET_NAMES])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pbc', 'cart', 'cell_folder', 'synthetic_smear']"
