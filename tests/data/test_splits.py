"""Splits: counts, determinism, no leak, groups whole, the paper's numbers, and the CSV."""

import csv

import numpy as np
import pytest

from rcmnet_jax.data.splits import (
    make_folds,
    make_leave_one_group_out,
    make_split,
    read_split_csv,
    write_split_csv,
)
from rcmnet_jax.errors import DataError


def records(counts, copies=()):
    """Columns of a made-up data set; `copies` pairs positions that share their bytes."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    files = [f"class{label}/{i:05d}.jpg" for i, label in enumerate(labels)]
    sha256 = [f"{i:064x}" for i in range(len(labels))]
    for first, second in copies:
        sha256[second] = sha256[first]
    names = tuple(f"class{i}" for i in range(len(counts)))
    return labels, {"files": files, "sha256": sha256, "class_names": names}


def by_file(split):
    return dict(zip(split.files.tolist(), split.part.tolist(), strict=True))


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_depends_on_files_and_seed_only(protocol):
    labels, columns = records([50, 60, 70], copies=[(0, 1), (3, 9)])
    split = make_split(labels, protocol=protocol, seed=3, **columns)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = make_split(
        labels[order],
        protocol=protocol,
        seed=3,
        files=np.asarray(columns["files"])[order],
        sha256=np.asarray(columns["sha256"])[order],
        class_names=columns["class_names"],
    )
    assert by_file(split) == by_file(shuffled)
    assert split.sha256 == shuffled.sha256
    other = make_split(labels, protocol=protocol, seed=4, **columns)
    assert other.sha256 != split.sha256


def test_known_split():
    """Committed splits must stay valid: a changed hash here is a changed split for everyone."""
    labels, columns = records([30, 40])
    split = make_split(labels, seed=0, **columns)
    assert split.sha256 == "3fd24622f796e04043a7b261490d42e59a8249d7b9e0311fcd03154695ed0d05"


def test_strict_uses_everything_but_copies():
    labels, columns = records([100, 50], copies=[(0, 1), (0, 2)])
    split = make_split(labels, **columns)
    counts = split.counts()
    assert counts["dropped"] == {"class0": 2, "class1": 0}
    assert counts["test"] == {"class0": 20, "class1": 10}
    assert counts["val"] == {"class0": 7, "class1": 4}
    assert counts["train"] == {"class0": 71, "class1": 36}
    assert split.reason[1] == split.reason[2] == "duplicate of class0/00000.jpg"
    assert split.level == "image"
    assert sorted(
        np.concatenate([split.indices(p) for p in ("train", "val", "test", "dropped")]).tolist()
    ) == list(range(150))


def test_paper_numbers_of_pbc():
    counts = [1218, 1219, 1220, 1220, 1214, 1220, 1219, 1220]
    # Six pairs among the 1,218 basophils: without them there would be 1,212, fewer than 1,214.
    pairs = [(i, i + 600) for i in range(6)]
    labels, columns = records(counts, copies=pairs)
    for seed in range(3):
        split = make_split(labels, protocol="paper", seed=seed, **columns)
        found = split.counts()
        assert set(found["train"].values()) == {874}
        assert set(found["val"].values()) == {97}
        assert set(found["test"].values()) == {243}
        for first, second in pairs:
            parts = {split.part[first], split.part[second]} - {"dropped"}
            assert len(parts) <= 1


def test_paper_without_validation_and_for_cart():
    labels, columns = records([1214] * 2)
    split = make_split(labels, protocol="paper", val_fraction=0, **columns)
    assert set(split.counts()["train"].values()) == {971}
    assert len(split.indices("val")) == 0
    labels, columns = records([250, 250])
    split = make_split(labels, protocol="paper", **columns)
    assert split.counts()["train"] == {"class0": 180, "class1": 180}
    assert split.counts()["test"] == {"class0": 50, "class1": 50}


def test_paper_ignores_patients_and_says_so():
    labels, columns = records([40, 40])
    split = make_split(labels, protocol="paper", groups=["p1"] * 80, **columns)
    assert split.level == "image"
    assert set(split.group) == {""}


def test_sizes_by_request():
    labels, columns = records([60, 80])
    split = make_split(labels, protocol="paper", per_class=50, train_per_class=20, **columns)
    assert split.counts()["test"] == {"class0": 30, "class1": 30}
    assert split.counts()["train"] == {"class0": 18, "class1": 18}
    strict = make_split(labels, per_class=50, **columns)
    assert strict.counts()["dropped"] == {"class0": 10, "class1": 30}
    with pytest.raises(DataError, match="'class0' has 60 images"):
        make_split(labels, protocol="paper", per_class=61, **columns)


def groups_of(labels, number, seed=0):
    return [f"p{i}" for i in np.random.default_rng(seed).integers(0, number, len(labels))]


@pytest.mark.parametrize("number", [3, 6, 40])
def test_groups_stay_whole_and_classes_stay_balanced(number):
    labels, columns = records([120, 200, 80], copies=[(0, 5)])
    groups = groups_of(labels, number)
    split = make_split(labels, groups=groups, level="slide", seed=1, **columns)
    assert split.level == "slide"
    for group in set(groups):
        parts = {p for p, g in zip(split.part, groups, strict=True) if g == group} - {"dropped"}
        assert len(parts) == 1
    if number == 40:
        for name, count in zip(columns["class_names"], (120, 200, 80), strict=True):
            assert split.counts()["test"][name] == pytest.approx(0.2 * count, rel=0.35)


def test_one_large_patient_goes_to_train():
    labels, columns = records([100, 100])
    groups = ["big"] * 70 + [f"p{i % 10}" for i in range(30)]
    split = make_split(labels, groups=groups * 2, seed=0, **columns)
    assert set(split.part[:70]) == {"train"}


def test_folds_test_every_image_once():
    labels, columns = records([23, 31], copies=[(0, 1)])
    folds = make_folds(labels, folds=5, seed=2, **columns)
    tested = np.sum([fold.part == "test" for fold in folds], axis=0)
    np.testing.assert_array_equal(tested, [1, 0] + [1] * 52)
    for fold in folds:
        assert fold.counts()["test"]["class1"] in (6, 7)
        assert min(fold.counts()["val"].values()) >= 1


def test_folds_keep_groups_whole():
    labels, columns = records([60, 60])
    groups = np.asarray(groups_of(labels, 12))
    folds = make_folds(labels, folds=3, groups=groups, **columns)
    assert np.all(np.sum([fold.part == "test" for fold in folds], axis=0) == 1)
    for fold in folds:
        for group in set(groups):
            assert len(set(fold.part[groups == group])) == 1


def test_leave_one_patient_out():
    labels, columns = records([30, 30])
    groups = np.asarray(groups_of(labels, 4))
    splits = make_leave_one_group_out(labels, groups=groups, val_fraction=0.3, **columns)
    for name, split in zip(sorted(set(groups)), splits, strict=True):
        assert set(groups[split.indices("test")]) == {name}
        assert len(split.indices("val"))
    with pytest.raises(DataError, match=r"comes from patient a alone"):
        make_leave_one_group_out(labels, groups=["a"] * 30 + ["b"] * 30, **columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "lax"}, "unknown split protocol 'lax'"),
        ({"test_fraction": 0}, "test_fraction is 0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"train_per_class": 3}, "belongs to protocol 'paper'"),
        ({"groups": ["p1"] * 21}, "fewer than the 3 parts"),
        ({"groups": ["p1"] * 20 + [""]}, "1 images have no patient"),
        ({"groups": ["p1"]}, "differ in length"),
        ({"groups": ["p1"] * 21, "level": "ward"}, "unknown group level"),
    ],
)
def test_wrong_requests(options, message):
    labels, columns = records([10, 11])
    with pytest.raises(DataError, match=message) as error:
        make_split(labels, **{**columns, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_too_few_images(protocol):
    labels, columns = records([2, 30])
    with pytest.raises(DataError, match="class0"):
        make_split(labels, protocol=protocol, **columns)
    with pytest.raises(DataError, match="2 usable images for 5 folds"):
        make_folds(labels, **columns)


def test_columns_that_contradict_each_other():
    labels, columns = records([10, 10], copies=[(0, 15)])
    with pytest.raises(DataError, match="identical copy under another label"):
        make_split(labels, **columns)
    labels, columns = records([10, 10])
    columns["files"][1] = columns["files"][0]
    with pytest.raises(DataError, match="the same file"):
        make_split(labels, **columns)


def test_only_copies_cannot_give_exact_counts():
    labels, columns = records([12, 12], copies=[(i, i + 1) for i in range(0, 12, 2)])
    with pytest.raises(DataError, match="too many identical copies"):
        make_split(labels, protocol="paper", val_fraction=0.1, **columns)


def test_csv_round_trip(tmp_path):
    labels, columns = records([30, 40], copies=[(0, 1)])
    split = make_split(labels, groups=groups_of(labels, 9), **columns)
    path = write_split_csv(split, tmp_path / "splits" / "split.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == ["file", "label", "part", "reason", "group"]
    assert [row["file"] for row in rows] == sorted(columns["files"])
    back = read_split_csv(path, labels=labels, **columns)
    np.testing.assert_array_equal(back.part, split.part)
    np.testing.assert_array_equal(back.group, split.group)
    assert back.sha256 == split.sha256
    assert back.reason.tolist() == split.reason.tolist()
    assert [p.name for p in path.parent.iterdir()] == ["split.csv"]


def test_csv_must_match_the_data(tmp_path):
    labels, columns = records([30, 40])
    path = write_split_csv(make_split(labels, **columns), tmp_path / "split.csv")
    fewer = {**columns, "files": columns["files"][:-1], "sha256": columns["sha256"][:-1]}
    with pytest.raises(DataError, match="1 files of the split are not in the data set"):
        read_split_csv(path, labels=labels[:-1], **fewer)
    more = {**columns, "files": [*columns["files"], "new.jpg"]}
    more["sha256"] = [*columns["sha256"], "f" * 64]
    with pytest.raises(DataError, match=r"1 files of the data set are not in the split \(new.jpg"):
        read_split_csv(path, labels=[*labels, 1], **more)
    with pytest.raises(DataError, match="make the split again"):
        read_split_csv(path, labels=1 - labels, **columns)
    leak = {**columns, "sha256": ["0" * 64] * 30 + columns["sha256"][30:]}
    with pytest.raises(DataError, match="identical copies in two parts"):
        read_split_csv(path, labels=labels, **leak)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a split"),
        ("file,label\n", "is not a split"),
        ("file,label,part,reason,group\na,b,holdout,,\n", "unknown part 'holdout'"),
        ("file,label,part,reason,group\na,b\n", "row 2 has 2 fields"),
        ("file,label,part,reason,group\na,b,val,,\na,b,val,,\n", "row 3 repeats a"),
    ],
)
def test_wrong_csv(tmp_path, text, message):
    labels, columns = records([3, 3])
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_split_csv(tmp_path / "split.csv", labels=labels, **columns)
    with pytest.raises(DataError, match="cannot be read"):
        read_split_csv(tmp_path / "none.csv", labels=labels, **columns)


def test_unknown_part():
    labels, columns = records([10, 10])
    with pytest.raises(DataError, match="unknown part 'valid'"):
        make_split(labels, **columns).indices("valid")
