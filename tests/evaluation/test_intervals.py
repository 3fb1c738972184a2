"""Wilson limits against published values, the bootstrap against theory and against brute force."""

import time

import numpy as np
import pytest
from scipy.stats import binomtest

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import (
    Proportion,
    bootstrap,
    expected_calibration_error,
    scores,
    wilson,
)
from rcmnet_jax.evaluation.bootstrap import STATISTICS


def draw(classes, count, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 2
    weight = np.exp(logits)
    return labels, weight / weight.sum(axis=1, keepdims=True)


def test_wilson_published_values():
    # Newcombe 1998, Table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0000, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(confidence):
    for k, n in [(0, 1), (1, 1), (3, 7), (1900, 1944), (1944, 1944), (1, 10**6)]:
        other = binomtest(k, n).proportion_ci(confidence, method="wilson")
        assert wilson(k, n, confidence) == pytest.approx((other.low, other.high), abs=1e-12)


def test_wilson_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    assert Proportion.of(np.int64(3), np.int64(4)).value == 0.75
    assert Proportion.of(0, 0).value is None
    for k, n, confidence in [(5, 4, 0.95), (-1, 4, 0.95), (1, 4, 0.0), (1, 4, 95)]:
        with pytest.raises(UserError):
            wilson(k, n, confidence)


def confusion(labels, probabilities):
    return scores.confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])


SLOW = {
    "accuracy": lambda y, p: (p.argmax(axis=1) == y).mean(),
    "balanced_accuracy": lambda y, p: scores.balanced_accuracy(confusion(y, p)),
    "macro_f1": lambda y, p: scores.macro_f1(confusion(y, p)),
    "nll": lambda y, p: -np.log(p[np.arange(len(y)), y]).mean(),
    "brier": lambda y, p: ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1).mean(),
    "macro_auc": lambda y, p: scores.one_vs_rest_auc(y, p).mean(),
    "ece": expected_calibration_error,
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("grouped", [False, True])
def test_fast_paths_agree_with_brute_force(statistic, grouped):
    """The vectorised laws are those of resampling images: same limits but for Monte Carlo."""
    labels, probabilities = draw(3, 120)
    groups = np.arange(120) // 3 if grouped else None

    options = {"groups": groups, "samples": 1000}
    fast = bootstrap(labels, probabilities, statistic, seed=1, **options)
    brute = bootstrap(labels, probabilities, SLOW[statistic], seed=2, **options)
    assert fast.value == pytest.approx(brute.value)
    width = brute.high - brute.low
    assert width > 0
    assert fast.low == pytest.approx(brute.low, abs=0.15 * width)
    assert fast.high == pytest.approx(brute.high, abs=0.15 * width)
    assert fast.unit == ("groups" if grouped else "images")


def test_accuracy_limits_are_those_of_theory():
    labels = np.zeros(1000, int)
    predicted = np.eye(2)[(np.arange(1000) < 200).astype(int)]
    result = bootstrap(labels, predicted, "accuracy", samples=20_000)
    spread = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert result.low == pytest.approx(0.8 - spread, abs=0.0025)
    assert result.high == pytest.approx(0.8 + spread, abs=0.0025)


def test_groups_are_kept_whole():
    """Ten images a patient that are all right or all wrong carry the information of one."""
    labels = np.zeros(400, int)
    patient = np.arange(400) // 10
    predicted = np.eye(2)[(patient % 4 == 0).astype(int)]
    alone = bootstrap(labels, predicted, "accuracy")
    whole = bootstrap(labels, predicted, "accuracy", groups=patient)
    ratio = (whole.high - whole.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.1)
    # A group for each image is no grouping.
    single = bootstrap(labels, predicted, "accuracy", groups=np.arange(400))
    assert single.low == pytest.approx(alone.low, abs=0.01)


def test_one_group_has_no_limits():
    labels, probabilities = draw(3, 30)
    result = bootstrap(labels, probabilities, "accuracy", groups=["p1"] * 30)
    assert result.value is not None
    assert result.low is None
    assert result.high is None


def test_same_seed_same_limits():
    labels, probabilities = draw(4, 80)
    for statistic in STATISTICS:
        first = bootstrap(labels, probabilities, statistic, samples=200, seed=3)
        assert first == bootstrap(labels, probabilities, statistic, samples=200, seed=3)
    other = bootstrap(labels, probabilities, "nll", samples=200, seed=4)
    assert other.low != bootstrap(labels, probabilities, "nll", samples=200, seed=3).low


def test_undefined_resamples_are_left_out():
    labels = np.array([1] + [0] * 9)
    probabilities = np.column_stack([np.linspace(0.1, 0.9, 10), np.linspace(0.9, 0.1, 10)])
    result = bootstrap(labels, probabilities, "macro_auc", samples=500)
    assert result.value == 1.0
    assert 200 < result.samples < 450  # (1 - 1/10)^10 = 35 % of resamples lack the positive
    assert result.low == 1.0


def test_fast_enough_for_the_paper_test_set():
    labels, probabilities = draw(8, 1944)
    start = time.perf_counter()
    for statistic in ("balanced_accuracy", "macro_f1"):
        bootstrap(labels, probabilities, statistic, samples=2000)
    assert time.perf_counter() - start < 2


def test_bad_arguments():
    labels, probabilities = draw(3, 30)
    with pytest.raises(DataError, match="unknown statistic 'f2'; choose from accuracy"):
        bootstrap(labels, probabilities, "f2")
    with pytest.raises(DataError, match="29 groups for 30 images"):
        bootstrap(labels, probabilities, "accuracy", groups=["p"] * 29)
    with pytest.raises(DataError, match="image 1 has no group"):
        bootstrap(labels, probabilities, "accuracy", groups=["p", None] * 15)
    with pytest.raises(UserError, match="at least 1 sample"):
        bootstrap(labels, probabilities, "accuracy", samples=0)
    with pytest.raises(UserError, match="between 0 and 1"):
        bootstrap(labels, probabilities, "accuracy", confidence=95)
