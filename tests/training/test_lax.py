"""The paper's protocol to the letter: possible, and every file of such a run says what it is."""

import json

from rcmnet_jax.evaluation import read_predictions
from rcmnet_jax.training.loop import train
from tests.training.runs import config_of, rows_of

LAX = {"data.split.val_fraction": 0.0, "eval.watch": "test", "eval.views": "paper"}


def accesses(workdir):
    lines = (workdir / "test_access.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_watched_test_part_is_said_and_views_are_not_taken_for_images(cells, tmp_path):
    summary = train(config_of(cells, "epochs=2", **LAX), tmp_path)
    assert summary["test"]["accuracy"]["n"] == 72
    # The bootstrap resamples the twelve images, each with its six views.
    assert summary["test"]["groups"] == 12
    content = json.loads((tmp_path / "test_metrics.json").read_text())
    assert "chosen on the test part" in content["split_note"]
    assert "six views" in content["split_note"]
    epochs = rows_of(tmp_path, "epoch")
    assert all("test_accuracy" in row and "val_accuracy" not in row for row in epochs)
    # Best means best on the test part: that is what the protocol does.
    best = max(row["test_balanced_accuracy"] for row in epochs)
    assert summary["best"]["value"] == best == content["balanced_accuracy"]["value"]
    assert [a["why"] for a in accesses(tmp_path)] == [
        "watched while training",
        "watched while training",
        "scored at the end of training",
    ]
    files = read_predictions(tmp_path / "test_predictions.csv").files
    assert sum("#view" in file for file in files) == 60


def test_a_strict_run_looks_at_its_test_part_once(finished):
    workdir, _ = finished
    assert [a["why"] for a in accesses(workdir)] == ["scored at the end of training"]
    note = json.loads((workdir / "test_metrics.json").read_text())["split_note"]
    assert "chosen on the test part" not in note
