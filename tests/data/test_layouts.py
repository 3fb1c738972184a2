"""Folders above the classes: parts, folds and patients are recognised and used."""

import zipfile

import numpy as np
import pytest

from rcmnet_jax.data import prepare_dataset
from rcmnet_jax.data.sources import open_source
from rcmnet_jax.data.sources.folder_layouts import part_of
from rcmnet_jax.errors import DataError


def _prepared(root, tmp_path):
    return prepare_dataset("cell_folder", root, tmp_path / "data", progress=False)


@pytest.mark.parametrize(
    ("train", "test"), [("TRAIN", "TEST_SIMPLE"), ("train", "test"), ("Training", "Testing")]
)
def test_part_folders_become_the_split(class_folder, tmp_path, train, test):
    root = class_folder(
        {f"{train}/a": 6, f"{train}/b": 6, "val/a": 1, "val/b": 1, f"{test}/a": 3, f"{test}/b": 2}
    )
    (root / train / "readme.txt").write_text("x")
    dataset = _prepared(root, tmp_path)
    assert dataset.class_names == ("a", "b")
    split = dataset.split()
    assert split.protocol == "given"
    first = {"train": train, "val": "val", "test": test}
    assert [file.split("/")[0] for file in split.files] == [first[part] for part in split.part]
    assert "taken as the split" in dataset.audit.table()


def test_a_missing_part_is_held_out_of_train(class_folder, tmp_path):
    root = class_folder({"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 3})
    split = _prepared(root, tmp_path).split(val_fraction=0.2)
    assert {part: len(split.indices(part)) for part in ("train", "val", "test")} == {
        "train": 16,
        "val": 4,
        "test": 6,
    }
    assert all(file.startswith("test/") for file in split.files[split.indices("test")])


def test_copies_leave_train_not_test(class_folder, tmp_path):
    root = class_folder({"a_train/x": 4, "train/x": 4, "train/y": 8, "test/x": 3, "test/y": 3})
    (root / "a_train").rename(root / "train2")
    (root / "train/x/same.jpg").write_bytes((root / "test/x/x_000.jpg").read_bytes())
    split = _prepared(root, tmp_path).split(val_fraction=0.0)
    assert split.part[list(split.files).index("train/x/same.jpg")] == "dropped"
    assert split.part[list(split.files).index("test/x/x_000.jpg")] == "test"


@pytest.mark.parametrize(
    ("names", "level"),
    [
        (("P1", "P2", "P3"), "patient"),
        (("Mueller", "Schmidt", "Okafor"), "patient"),
        (("fold1", "fold2", "fold3"), "fold"),
        (("slide_A", "slide_B", "slide_C"), "slide"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_groups_above_the_classes(class_folder, tmp_path, names, level, zipped):
    root = class_folder({f"{name}/{c}": 4 for name in names for c in ("blast", "other")})
    if zipped:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for path in sorted(root.rglob("*.jpg")):
                archive.write(path, f"wrapper/{path.relative_to(root)}")
        root = tmp_path / "x.zip"
    dataset = _prepared(root, tmp_path)
    assert dataset.class_names == ("blast", "other")
    groups, found = dataset.groups()
    assert found == level
    assert groups is not None
    assert groups.tolist() == [file.split("/")[0] for file in dataset.records.file]
    split = dataset.split(test_fraction=0.34, val_fraction=0.0)
    assert {len(set(split.part[groups == name])) for name in names} == {1}


def test_parts_over_patients_over_classes(class_folder):
    folders = [f"{p}/{n}/{c}" for p in ("train", "test") for n in ("p1", "p2") for c in "ab"]
    source = open_source(class_folder(dict.fromkeys(folders, 1)))
    file = next(file for file in source.files if file.file.startswith("test/p2/b/"))
    assert (file.label, file.patient, file.part) == ("b", "p2", "test")


def test_classes_over_patients_stay_classes(class_folder):
    root = class_folder({f"{c}/patient{n}": 1 for c in ("blast", "lymphocyte") for n in (1, 2, 3)})
    assert open_source(root).class_names == ("blast", "lymphocyte")


def test_classes_with_different_subfolders_stay_classes(class_folder):
    root = class_folder({"neutrophil/band": 1, "neutrophil/seg": 1, "lymphocyte/large": 1})
    assert open_source(root).class_names == ("lymphocyte", "neutrophil")


def test_two_levels_of_ids_ask_for_a_manifest(class_folder):
    root = class_folder({f"{a}/{b}": 1 for a in ("01", "02") for b in ("1", "2")})
    with pytest.raises(DataError, match=r"neither its folders \(01, 02\).*manifest"):
        open_source(root)


def test_the_column_split_becomes_the_split(class_folder, tmp_path):
    root = class_folder({"a": 4, "b": 4})
    parts = ["train", "Training", "valid", "TEST"]
    lines = [f"{c}/{c}_{i:03d}.jpg,{c},{parts[i]}" for c in "ab" for i in range(4)]
    (root / "m.csv").write_text("\n".join(["file,label,split", *lines]))
    split = _prepared(root / "m.csv", tmp_path).split()
    assert split.part.tolist() == ["train", "train", "val", "test"] * 2
    (root / "m.csv").write_text("\n".join(["file,label,split", *lines[:-1], "b/b_003.jpg,b,"]))
    with pytest.raises(DataError, match="row 9: split is ''"):
        open_source(root / "m.csv")


def test_a_patient_in_two_given_parts_is_found(class_folder, tmp_path):
    root = class_folder({"a": 4, "b": 4})
    lines = [
        f"{c}/{c}_{i:03d}.jpg,{c},p{i % 2},{'test' if i == 3 else 'train'}"
        for c in "ab"
        for i in range(4)
    ]
    (root / "m.csv").write_text("\n".join(["file,label,patient,split", *lines]))
    dataset = _prepared(root / "m.csv", tmp_path)
    assert dataset.split(val_fraction=0.0).level == "image"
    found = {finding.kind: finding for finding in dataset.audit.findings}
    assert found["divided-group"].examples == ("p1: test, train",)


def test_one_blank_patient_is_a_patient_of_its_own(class_folder, tmp_path, caplog):
    root = class_folder({"a": 20, "b": 20})
    lines = [
        f"{c}/{c}_{i:03d}.jpg,{c},{'' if (c, i) == ('a', 0) else f'p{i}'}"
        for c in "ab"
        for i in range(20)
    ]
    (root / "m.csv").write_text("\n".join(["file,label,patient", *lines]))
    dataset = _prepared(root / "m.csv", tmp_path)
    split = dataset.split()
    assert split.level == "patient"
    for name in set(dataset.records.patient) - {""}:
        assert len(set(split.part[dataset.records.patient == name])) == 1
    assert "1 of 40 images have no patient" in caplog.text
    assert "blank-group" in {finding.kind for finding in dataset.audit.findings}
    half = [line.rsplit(",", 1)[0] + "," if i % 2 else line for i, line in enumerate(lines)]
    (root / "m.csv").write_text("\n".join(["file,label,patient", *half]))
    with pytest.raises(DataError, match=r"images have no patient.*group_by=image"):
        _prepared(root / "m.csv", tmp_path).split()


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["Neutrophil", "neutrophil", "ig"], "label-spelling"),
        (["band cell", "Bandcell", "ig"], "label-spelling"),
    ],
)
def test_names_that_differ_by_accident(class_folder, tmp_path, names, kind):
    dataset = _prepared(class_folder(dict.fromkeys(names, 2)), tmp_path)
    assert kind in {finding.kind for finding in dataset.audit.findings}


def test_patients_1_and_001_are_found_but_10_is_another(class_folder, tmp_path):
    root = class_folder({"a": 3, "b": 3})
    ids = ["1", "001", "10"]
    lines = [f"{c}/{c}_{i:03d}.jpg,{c},{ids[i]}" for c in "ab" for i in range(3)]
    (root / "m.csv").write_text("\n".join(["file,label,patient", *lines]))
    found = {f.kind: f for f in _prepared(root / "m.csv", tmp_path).audit.findings}
    assert found["patient-spelling"].examples == ("'1' (2) = '001' (2)",)


def test_unicode_forms_are_one_class_and_one_file(class_folder):
    root = class_folder({"Großer Monozyt (\u00e4)": 1, "Großer Monozyt (a\u0308)": 1, "b": 1})
    assert open_source(root).class_names == ("Großer Monozyt (\u00e4)", "b")
    (root / "b/a\u0308.jpg").write_bytes(b"x")
    (root / "m.csv").write_text("file,label\nb/\u00e4.jpg,x\nb/b_000.jpg,y")
    assert open_source(root / "m.csv").files[0].file == "b/a\u0308.jpg"


def test_unicode_forms_below_patients_are_one_class(class_folder):
    names = ["Zoe/\u00f6", "Zoe/\u00e4", "Jan/o\u0308", "Jan/a\u0308"]
    source = open_source(class_folder(dict.fromkeys(names, 2)))
    assert source.class_names == ("\u00e4", "\u00f6")
    assert {file.patient for file in source.files} == {"Zoe", "Jan"}


@pytest.mark.parametrize(
    "name", ["@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN", "__MACOSX", ".git"]
)
@pytest.mark.parametrize("where", ["", "a", "a/deep"])
def test_system_folders_are_ignored_at_every_depth(class_folder, encode, name, where):
    root = class_folder({"a": 1, "b": 1})
    before = open_source(root).files
    folder = root / where / name / "inner"
    folder.mkdir(parents=True)
    (folder / "thumb.jpg").write_bytes(encode(1))
    source = open_source(root)
    assert source.files == before
    shown = f"{where}/{name}/" if where else f"{name}/"
    assert [(i.file, "with 1 file" in i.reason) for i in source.ignored] == [(shown, True)]


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", "._a_000.jpg", "~$list.jpg"])
def test_system_files_are_ignored(class_folder, encode, name):
    root = class_folder({"a": 1, "b": 1})
    (root / "a" / name).write_bytes(encode(1))
    assert [i.file for i in open_source(root).ignored] == [f"a/{name}"]


def test_links_to_themselves_are_ignored(class_folder):
    root = class_folder({"a": 1, "b": 1})
    (root / "loop").symlink_to("loop")
    (root / "a" / "loop.jpg").symlink_to("loop.jpg")
    assert {item.file for item in open_source(root).ignored} == {"loop", "a/loop.jpg"}


def test_part_words():
    words = {"train": "train", "TEST_SIMPLE": "test", "valid": "val", "trained cells": None}
    assert {word: part_of(word) for word in words} == words
    assert np.all([part_of(word) is None for word in ("testis", "valve", "blast")])
