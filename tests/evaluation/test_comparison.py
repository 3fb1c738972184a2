"""The paired test against scipy and by hand; runs that may not be compared are refused."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import Predictions, compare, mcnemar, write_predictions

NAMES = ("basophil", "eosinophil", "platelet")


def run(labels, predicted, *, files=None, names=NAMES, sha256=None):
    """Predictions that say `predicted` with certainty."""
    probabilities = np.eye(len(names))[predicted]
    files = files or [f"{i:03}.jpg" for i in range(len(labels))]
    return Predictions.of(
        np.asarray(labels), probabilities, files=files, class_names=names, sha256=sha256
    )


def pair(count=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    a = np.where(rng.random(count) < 0.95, labels, (labels + 1) % 3)
    b = np.where(rng.random(count) < 0.8, labels, (labels + 1) % 3)
    return labels, a, b


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 0) == 1
    assert mcnemar(0, 6) == 2 / 64
    assert mcnemar(1, 7) == 2 * (1 + 8) / 256
    assert mcnemar(5, 5) == 1
    assert mcnemar(*np.array([60, 20])) == mcnemar(60, 20) > 0
    with pytest.raises(UserError):
        mcnemar(-1, 2)


def test_mcnemar_agrees_with_scipy_and_is_symmetric():
    rng = np.random.default_rng(0)
    for b, c in rng.integers(0, 60, size=(50, 2)).tolist():
        assert mcnemar(b, c) == mcnemar(c, b)
        if b + c:
            assert mcnemar(b, c) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-10)


def test_mcnemar_is_safe_for_large_counts():
    for b, c in [(900, 1099), (1000, 1001), (1200, 1300), (49_000, 51_000), (10, 5000)]:
        assert mcnemar(b, c) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-7, abs=1e-300)
    assert mcnemar(0, 100_000) == 0
    assert mcnemar(50_000, 50_000) == 1


def test_counts_and_differences_by_hand():
    labels = [0, 0, 0, 0, 1, 1, 2, 2]
    a = [0, 0, 0, 1, 1, 1, 2, 0]  # recalls 3/4, 1, 1/2
    b = [0, 0, 1, 1, 1, 0, 2, 2]  # recalls 1/2, 1/2, 1
    result = compare(run(labels, a), run(labels, b), names=("x", "y"))
    counts = (result.both_right, result.only_first, result.only_second, result.both_wrong)
    assert counts == (4, 2, 1, 1)
    assert [p.k for p in result.accuracy] == [6, 5]
    assert result.accuracy_difference.value == pytest.approx(-1 / 8)
    assert result.balanced_accuracy == pytest.approx((2.25 / 3, 2 / 3))
    assert result.balanced_accuracy_difference.value == pytest.approx(2 / 3 - 0.75)
    assert result.p_value == 1


def test_bootstrap_limits_agree_with_brute_force():
    labels, a, b = pair()
    result = compare(run(labels, a), run(labels, b), samples=4000)
    rng = np.random.default_rng(1)
    accuracy, balanced = [], []
    for _ in range(4000):
        i = rng.integers(300, size=300)
        gain = (b[i] == labels[i]).astype(float) - (a[i] == labels[i])
        accuracy.append(gain.mean())
        balanced.append(np.mean([gain[labels[i] == k].mean() for k in range(3)]))
    for interval, values in [
        (result.accuracy_difference, accuracy),
        (result.balanced_accuracy_difference, balanced),
    ]:
        assert interval.low == pytest.approx(np.quantile(values, 0.025), abs=0.008)
        assert interval.high == pytest.approx(np.quantile(values, 0.975), abs=0.008)


def test_a_run_against_itself_shows_nothing():
    labels, a, _ = pair()
    result = compare(run(labels, a), run(labels, a))
    assert result.p_value == 1
    difference = result.accuracy_difference
    assert difference.value == difference.low == difference.high == 0
    assert "no difference in accuracy is shown" in result.table()


def test_swapping_the_runs_swaps_the_sign():
    labels, a, b = pair()
    forth = compare(run(labels, a), run(labels, b))
    back = compare(run(labels, b), run(labels, a))
    assert forth.accuracy_difference.value == -back.accuracy_difference.value
    assert forth.p_value == back.p_value < 0.05
    assert forth.only_first == back.only_second
    assert "A is more accurate" in forth.table()
    assert "B is more accurate" in back.table()


def test_order_of_images_and_classes_does_not_matter(tmp_path):
    labels, a, b = pair()
    files = [f"{i:03}.jpg" for i in range(300)]
    plain = compare(run(labels, a, files=files), run(labels, b, files=files))
    order = np.random.default_rng(3).permutation(300)
    turned = NAMES[::-1]
    shuffled = run(2 - labels[order], 2 - b[order], files=[files[i] for i in order], names=turned)
    write_predictions(tmp_path / "a.csv", run(labels, a, files=files))
    write_predictions(tmp_path / "b.csv", shuffled)
    again = compare(tmp_path / "a.csv", tmp_path / "b.csv")
    assert again == plain


def test_groups_widen_the_limits_when_errors_cluster():
    labels = np.zeros(300, int)
    patient = np.arange(300) // 10
    a, b = (patient % 5 == 0).astype(int), (patient % 3 == 0).astype(int)
    alone = compare(run(labels, a), run(labels, b)).accuracy_difference
    whole = compare(run(labels, a), run(labels, b), groups=patient)
    difference = whole.accuracy_difference
    assert whole.groups == 30
    assert difference.high - difference.low > 2 * (alone.high - alone.low)
    assert "30 groups" in whole.table()
    assert "McNemar takes images as independent" in whole.table()


def test_dict_is_json():
    labels, a, b = pair()
    content = compare(run(labels, a), run(labels, b)).to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert math.isclose(
        content["accuracy"][1]["value"] - content["accuracy"][0]["value"],
        content["accuracy_difference"]["value"],
    )


def test_other_images_are_refused(tmp_path):
    labels, a, b = pair(6)
    first = run(labels, a)
    files = [*first.files[:-1], "new.jpg"]
    with pytest.raises(DataError, match=r"1 only in A, 1 only in B \(such as 005.jpg\)"):
        compare(first, run(labels, b, files=files))
    with pytest.raises(DataError, match=r"0 only in A, 1 only in B \(such as 005.jpg\)"):
        compare(run(labels[:5], a[:5]), run(labels, b))
    with pytest.raises(DataError, match="1 images have another label in B than in A"):
        compare(first, run((labels + np.eye(6, dtype=int)[2]) % 3, b))
    with pytest.raises(DataError, match="different classes"):
        compare(first, run(labels, b, names=("basophil", "eosinophil", "ig")))
    one, other = ["0" * 64] * 6, ["0" * 64] * 5 + ["1" * 64]
    with pytest.raises(DataError, match=r"005.jpg changed between the runs"):
        compare(run(labels, a, sha256=one), run(labels, b, sha256=other))
    compare(run(labels, a, sha256=one), run(labels, b))  # an unknown hash is no contradiction
    with pytest.raises(DataError, match="cannot read predictions"):
        compare(first, tmp_path / "none.csv")
