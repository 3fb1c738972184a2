"""Prepared data sets: built once, opened again, the same from folder and zip."""

import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rcmnet_jax.data import dataset as dataset_module
from rcmnet_jax.data.dataset import prepare_dataset
from rcmnet_jax.data.splits import make_split
from rcmnet_jax.errors import ConfigError, DataError, UserError
from rcmnet_jax.synthetic import write_synthetic_folder


def test_columns_and_bytes(class_folder, tmp_path):
    root = class_folder({"a": 4, "b": 6})
    dataset = prepare_dataset("cell_folder", root, tmp_path / "data", progress=False)
    assert dataset.class_names == ("a", "b")
    assert len(dataset) == 10
    assert dataset.records.label.dtype == np.int32
    assert dataset.records.label.tolist() == [0] * 4 + [1] * 6
    assert dataset.records.file[4] == "b/b_000.jpg"
    assert set(dataset.records.height) == {24}
    assert not dataset.synthetic
    with ThreadPoolExecutor(4) as pool:
        data = list(pool.map(dataset.read, range(10)))
    assert data == [(root / file).read_bytes() for file in dataset.records.file]
    assert dataset.audit.data_sha256 == dataset.data_sha256
    again = pickle.loads(pickle.dumps(dataset))
    assert again.read(9) == data[9]
    assert dataset.source()[3]["image"] == data[3]
    assert {path.name for path in dataset.directory.glob("audit.*")} == {
        "audit.json",
        "audit.csv",
        "audit.txt",
    }


def test_built_once(class_folder, tmp_path, monkeypatch):
    root = class_folder({"a": 3, "b": 3})
    first = prepare_dataset("cart", root, tmp_path / "data", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(dataset_module, "audit_source", None)
        second = prepare_dataset("cart", root, tmp_path / "data", progress=False)
    assert second.data_sha256 == first.data_sha256
    (root / "a" / "a_000.jpg").unlink()
    third = prepare_dataset("cart", root, tmp_path / "data", progress=False)
    assert len(third) == 5
    assert third.directory != first.directory


def test_damaged_build_is_built_again(class_folder, tmp_path):
    root = class_folder({"a": 3, "b": 3})
    first = prepare_dataset("cart", root, tmp_path / "data", progress=False)
    first.audit_path.write_text("{")
    again = prepare_dataset("cart", root, tmp_path / "data", progress=False)
    assert again.data_sha256 == first.data_sha256
    assert again.read(5) == first.read(5)


def test_missing_records_name_the_remedy(class_folder, tmp_path):
    dataset = prepare_dataset(
        "cart", class_folder({"a": 3, "b": 3}), tmp_path / "data", progress=False
    )
    for path in dataset.directory.glob("*array_record*"):
        path.unlink()
    with pytest.raises(DataError, match="delete the folder"):
        dataset.read(0)


def test_zip_is_the_same_data_set(class_folder, tmp_path):
    root = class_folder({"a": 3, "b": 3})
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        for path in sorted(root.rglob("*.jpg")):
            archive.write(path, f"wrapper/{path.relative_to(root)}")
    folder = prepare_dataset("cart", root, tmp_path / "data", progress=False)
    zipped = prepare_dataset("cart", tmp_path / "cells.zip", tmp_path / "data", progress=False)
    assert zipped.data_sha256 == folder.data_sha256
    shutil.rmtree(root)
    assert zipped.read(0) == folder.read(0)


def test_groups(class_folder, tmp_path):
    root = class_folder({"a": 6, "b": 6})
    lines = ["file,label,patient,slide"]
    for label in "ab":
        for i in range(6):
            lines.append(f"{label}/{label}_{i:03d}.jpg,{label},{'p1' if i else ''},s{i % 3}")
    (root / "m.csv").write_text("\n".join(lines))
    dataset = prepare_dataset("cell_folder", root / "m.csv", tmp_path / "data", progress=False)
    ids, level = dataset.groups()
    assert level == "slide"
    assert ids is not None
    assert ids.tolist() == ["s0", "s1", "s2"] * 4
    assert dataset.groups("image") == (None, "image")
    with pytest.raises(DataError, match="unknown level"):
        dataset.groups("ward")
    split = make_split(**dataset.split_columns, groups=ids, level=level)
    assert {len(set(split.part[ids == name])) for name in set(ids)} == {1}


def test_synthetic_smear_marks_a_folder_as_drawn(tmp_path):
    folder = write_synthetic_folder(tmp_path / "x", kind="cart", per_class=2, height=48, width=48)
    dataset = prepare_dataset("synthetic_smear", folder, tmp_path / "data", progress=False)
    assert dataset.synthetic
    assert len(dataset) == 4
    assert set(dataset.records.width) == {48}
    same = prepare_dataset("cell_folder", folder, tmp_path / "data", progress=False)
    assert same.data_sha256 == dataset.data_sha256


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [("mnist", "x", "unknown data set 'mnist'"), ("pbc", "", "pbc needs a source")],
)
def test_wrong_arguments(name, source, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        prepare_dataset(name, source, tmp_path, progress=False)


def test_data_dir_that_cannot_be_made(class_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="RCMNET_DATA_DIR"):
        prepare_dataset("cart", class_folder({"a": 1, "b": 1}), tmp_path / "file", progress=False)


def test_finished_data_are_opened_without_writing(class_folder, tmp_path, monkeypatch):
    root = class_folder({"a": 3, "b": 3})
    prepare_dataset("cart", root, tmp_path / "data", progress=False)
    # The tests may run as root, whom file modes do not stop.
    monkeypatch.setattr(dataset_module, "exclusive_lock", None)
    assert prepare_dataset("cart", root, tmp_path / "data", progress=False).read(0)


def test_default_data_dir(class_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RCMNET_DATA_DIR", str(tmp_path / "from-environment"))
    dataset = prepare_dataset("cart", class_folder({"a": 1, "b": 1}), progress=False)
    assert dataset.directory.is_relative_to(tmp_path / "from-environment")


def test_real_images(pbc_part, tmp_path):
    dataset = prepare_dataset("pbc", pbc_part, tmp_path, progress=False)
    assert len(dataset.class_names) == 8
    assert len(dataset) == 8 * 6 + 2
    assert set(dataset.records.width) <= {359, 360, 362, 366}
