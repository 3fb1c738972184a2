"""Intervals of F1, AUC and ECE hold their value and shrink with more images."""

import numpy as np
import pytest

from rcmnet_jax.evaluation import evaluate_predictions, expected_calibration_error
from rcmnet_jax.evaluation.bootstrap import Resampler, bootstrap, class_intervals
from rcmnet_jax.evaluation.subgroups import MAX_VALUES, UNKNOWN, subgroup_table


def predictions(count, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    p = rng.dirichlet(np.ones(3), count)
    p[np.arange(count), labels] += 0.6
    return labels, p / p.sum(axis=1, keepdims=True)


def test_values_are_those_of_the_evaluation():
    labels, p = predictions(200)
    evaluation = evaluate_predictions(labels, p, ["a", "b", "c"], samples=20)
    for found, known in zip(
        class_intervals(labels, p, samples=300), evaluation.per_class, strict=True
    ):
        assert found.f1.value == pytest.approx(known.f1)
        assert found.auc.value == pytest.approx(known.auc)
        assert found.f1.low < found.f1.value < found.f1.high
        assert found.auc.low < found.auc.value < found.auc.high


def test_the_vectorised_ece_is_the_plain_one():
    labels, p = predictions(60)
    groups = [f"g{i % 12}" for i in range(60)]
    interval = bootstrap(labels, p, "ece", groups=groups, samples=200)
    assert interval.value == pytest.approx(expected_calibration_error(labels, p))
    # The same resamples, one by one.
    draw = Resampler(60, groups, 200, 0)
    plain = [
        expected_calibration_error(np.repeat(labels, w), np.repeat(p, w, axis=0))
        for chunk in draw.weights()
        for w in chunk.T.astype(int)
    ]
    low, high = np.quantile(plain, [0.025, 0.975])
    assert interval.low == pytest.approx(low)
    assert interval.high == pytest.approx(high)


def test_a_class_without_images_has_no_interval():
    labels, p = predictions(80)
    keep = labels != 2
    auc = class_intervals(labels[keep], p[keep], samples=50)[2].auc
    assert auc.value is auc.low is None


def test_subgroups_add_up_and_empty_values_are_one():
    labels, p = predictions(90)
    column = ["x" if i % 3 == 0 else "" for i in range(90)]
    rows = subgroup_table(labels, p, column, samples=20)
    assert [(row.value, row.n) for row in rows] == [(UNKNOWN, 60), ("x", 30)]
    right = p.argmax(axis=1) == labels
    assert sum(row.accuracy.k for row in rows) == right.sum()


def test_columns_that_divide_nothing_are_no_table():
    labels, p = predictions(90)
    assert subgroup_table(labels, p, ["x"] * 90, samples=5) is None
    assert subgroup_table(labels, p, [str(i) for i in range(90)], samples=5) is None
    assert MAX_VALUES < 90
