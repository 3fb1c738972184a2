"""Validation scores, and what counts as better."""

import json
import math

import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_run
from rcmnet_jax.training.validation import is_better
from tests.training.runs import rows_of


@pytest.mark.parametrize(
    ("metric", "value", "before", "better"),
    [
        ("loss", 0.4, 0.5, True),
        ("loss", 0.5, 0.5, False),
        ("loss", math.nan, 0.5, False),
        ("loss", 0.5, math.nan, True),
        ("accuracy", 0.6, 0.5, True),
        ("accuracy", 0.5, 0.5, False),
        ("macro_f1", 0.4, 0.5, False),
        ("balanced_accuracy", 0.1, None, True),
    ],
)
def test_a_lower_loss_and_a_higher_score_are_better(metric, value, before, better):
    assert is_better(metric, value, {"value": before}) is better


def test_the_first_score_is_always_better():
    assert is_better("accuracy", 0.0, None)


def test_validation_rows_hold_every_metric_in_range(finished):
    for row in rows_of(finished[0], "epoch"):
        for name in ("val_accuracy", "val_balanced_accuracy", "val_macro_f1"):
            assert 0 <= row[name] <= 1
        assert row["val_loss"] >= 0
        # Three validation images.
        assert np.isclose(row["val_accuracy"] * 3, round(row["val_accuracy"] * 3))


def test_the_restored_network_has_the_validation_scores_of_its_record(finished, cells):
    from rcmnet_jax.inference import BatchedPass, logits, softmax
    from rcmnet_jax.training.experiment import build_experiment
    from tests.training.runs import config_of

    restored = load_run(finished[0])
    experiment = build_experiment(config_of(cells, "epochs=3"))
    rows = experiment.split.indices("val")
    one_pass = BatchedPass.of(restored, logits, batch_size=6)
    probabilities = softmax(one_pass(restored.variables, experiment.pixels, rows))
    labels = experiment.dataset.records.label[rows]
    loss = -np.log(probabilities[np.arange(len(rows)), labels]).mean()
    np.testing.assert_allclose(loss, restored.meta["val"]["loss"], rtol=1e-6)


def test_test_scores_are_those_of_the_best_weights(finished):
    workdir, summary = finished
    written = json.loads((workdir / "test_metrics.json").read_text())
    assert written["accuracy"] == summary["test"]["accuracy"]
