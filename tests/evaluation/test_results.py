"""One evaluation on disk: all files, consistent with each other, whole or not at all."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import evaluate_predictions, read_predictions, write_evaluation
from rcmnet_jax.evaluation.results import split_note

CLASSES = ["basophil", "ig", "platelet"]


def write(directory, count=90, **options):
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % 3).astype(np.int32)
    weight = rng.dirichlet(np.ones(3), size=count)
    weight[np.arange(count), labels] += 0.5
    probabilities = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    given = {
        "files": [f"{i}.jpg" for i in range(count)],
        "sha256": [f"{i:064x}" for i in range(count)],
        "class_names": CLASSES,
        "meta": {"split": {"level": "image", "hash": "abc"}, "seed": 3, "rate": 0.05},
        "samples": 50,
    }
    return write_evaluation(directory, labels, probabilities, **{**given, **options})


def test_writes_everything_and_it_agrees(tmp_path):
    result = write(tmp_path / "eval", groups=[f"p{i % 9}" for i in range(90)])
    names = {"metrics.json", "predictions.csv", "confusion.png", "per_class.png", "reliability.png"}
    assert {p.name for p in (tmp_path / "eval").iterdir()} == {f"test_{n}" for n in names}
    content = json.loads((tmp_path / "eval" / "test_metrics.json").read_text())
    assert content["meta"] == {"split": {"level": "image", "hash": "abc"}, "seed": 3, "rate": 0.05}
    assert content["part"] == "test"
    assert content["synthetic"] is False
    assert content["groups"] == 9
    assert content["split_note"].startswith("image-level: an upper bound")
    table = tmp_path / "eval" / "test_predictions.csv"
    assert content["predictions_sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    for key, value in result.to_dict().items():
        assert content[key] == value, key
    # Every score can be recomputed from the table, to the last bit.
    read = read_predictions(table)
    again = evaluate_predictions(
        read.labels,
        read.probabilities,
        read.class_names,
        groups=[f"p{i % 9}" for i in range(90)],
        samples=50,
    )
    assert again.to_dict() == result.to_dict()


def test_same_input_same_bytes(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_part_and_synthetic_are_said(tmp_path):
    write(tmp_path, part="val-2", synthetic=True)
    content = json.loads((tmp_path / "val-2_metrics.json").read_text())
    assert content["part"] == "val-2"
    assert content["synthetic"] is True


@pytest.mark.parametrize("part", ["", "../test", "a/b", ".hidden", "a b"])
def test_part_is_no_path(tmp_path, part):
    with pytest.raises(UserError, match="must be letters"):
        write(tmp_path / "eval", part=part)
    assert not (tmp_path / "eval").exists()


def test_split_notes():
    assert split_note({}).startswith("split level not recorded")
    assert split_note({"split": None}).startswith("split level not recorded")
    assert split_note({"split": {"level": "image"}}).startswith("image-level: an upper bound")
    assert split_note({"split": {"level": "patient"}}) == (
        "patient-level: no patient lies in training and test alike"
    )
    assert split_note({"split": {"level": "external"}}).startswith("external:")
    other = {"split": {"level": "image", "protocol": "external"}}
    assert split_note(other).startswith("external:")


def test_meta_takes_numpy_and_paths_but_not_nan(tmp_path):
    meta = {"n": np.int64(3), "mean": np.ones(3, np.float32), "dir": Path("x"), "t": (1, 2)}
    write(tmp_path, meta=meta)
    content = json.loads((tmp_path / "test_metrics.json").read_text())
    assert content["meta"] == {"n": 3, "mean": [1.0, 1.0, 1.0], "dir": "x", "t": [1, 2]}
    for bad in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises(DataError, match=r"test_metrics\.json cannot hold its content"):
            write(tmp_path / "bad", meta=bad)
    assert not (tmp_path / "bad").exists()


def test_bad_predictions_write_nothing(tmp_path):
    with pytest.raises(DataError, match="2 class names but 3 columns"):
        write(tmp_path / "eval", class_names=["a", "b"])
    with pytest.raises(DataError, match="image 0 has no group"):
        write(tmp_path / "eval", groups=[""] * 90)
    assert not (tmp_path / "eval").exists()


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "eval").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write(tmp_path / "eval")
