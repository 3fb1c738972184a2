"""Two networks over several seeds: the variance by hand, and limits that hold as often as said."""

import json
import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import Predictions, compare_seeds, mcnemar
from rcmnet_jax.evaluation.seeds import _difference

NAMES = ("basophil", "platelet")


def run(right, labels=None, files=None):
    """Predictions that are right where `right` says so."""
    right = np.asarray(right, bool)
    labels = np.zeros(len(right), int) if labels is None else np.asarray(labels)
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
    files = files or [f"{i:04}.jpg" for i in range(len(right))]
    return Predictions.of(labels, probabilities, files=files, class_names=NAMES)


def study(rng, *, seeds=3, images=400, shift=0.0, of_seed=0.3, of_image=1.5):
    """(2, seeds, images) right or not: some images are hard for all runs, and seeds differ."""
    image = rng.normal(0, of_image, images)
    seed = rng.normal(0, of_seed, (2, seeds, 1))
    network = np.array([0.0, shift])[:, None, None]
    return rng.random((2, seeds, images)) < 1 / (1 + np.exp(-(2 + network + seed + image)))


def test_variance_is_that_of_the_formula():
    right = study(np.random.default_rng(0), images=50).astype(float)
    found = compare_seeds([run(r) for r in right[0]], [run(r) for r in right[1]]).accuracy
    scores = right.mean(axis=2)
    mean_square = scores.var(axis=1, ddof=1).mean()
    # Of means over images: covariances of single images by the number of images.
    covariance = np.cov(right.reshape(6, -1)) / 50
    within = [covariance[i, j] for i in range(6) for j in range(6) if i // 3 == j // 3 and i != j]
    across = covariance[:3, 3:].mean()
    of_images = 2 * max(np.mean(within) - across, 0)
    assert found.value == pytest.approx(scores[1].mean() - scores[0].mean())
    assert found.error_of_seeds**2 == pytest.approx(2 / 3 * mean_square)
    assert found.error_of_images**2 == pytest.approx(of_images, abs=1e-15)
    # Hillis 2014: (MS + r (Cov2 - Cov3))^2 / (MS^2 / (2 (r - 1))).
    whole = mean_square + 3 * of_images / 2
    assert found.degrees == pytest.approx(whole**2 / (mean_square**2 / 4))


def test_without_anything_shared_between_images_it_is_the_t_test_over_seeds():
    right = np.zeros((2, 4, 12), bool)
    for network in range(2):
        for seed in range(4):
            # Each seed errs on images of its own: the covariances are not positive.
            right[network, seed] = np.arange(12) % 4 != seed
            right[network, seed, (seed + network) % 2 * seed] = True
    found = compare_seeds([run(r) for r in right[0]], [run(r) for r in right[1]]).accuracy
    assert found.error_of_images == 0
    expected = ttest_ind(*right.mean(axis=2))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.degrees == pytest.approx(expected.df)


def test_limits_hold_for_other_seeds_and_images_where_those_of_two_runs_do_not():
    rng = np.random.default_rng(1)
    weights, alike = np.full(400, 1 / 400), np.zeros(400, int)
    p_values, of_pairs = [], []
    for _ in range(1000):
        right = study(rng).reshape(6, -1)
        p_values.append(_difference(right, weights, alike, 3, np.arange(400), 400, 0.95).p_value)
        of_pairs.append(mcnemar((right[0] & ~right[3]).sum(), (right[3] & ~right[0]).sum()))
    # No network is better than the other: 5 % should be called so, 50 with a deviation of 6.9.
    assert np.sum(np.array(p_values) < 0.05) == pytest.approx(50, abs=3 * 6.9)
    assert np.sum(np.array(of_pairs) < 0.05) > 150


def test_a_better_network_is_found():
    right = study(np.random.default_rng(2), shift=1.5)
    found = compare_seeds([run(r) for r in right[0]], [run(r) for r in right[1]])
    assert found.accuracy.low > 0
    assert found.accuracy.p_value < 0.05
    back = compare_seeds([run(r) for r in right[1]], [run(r) for r in right[0]])
    assert back.accuracy.value == pytest.approx(-found.accuracy.value)
    assert back.accuracy.p_value == pytest.approx(found.accuracy.p_value)


def test_balanced_accuracy_weighs_classes_alike():
    labels = np.array([0] * 30 + [1] * 10)
    right = study(np.random.default_rng(3), images=40)
    found = compare_seeds([run(r, labels) for r in right[0]], [run(r, labels) for r in right[1]])
    recalls = np.stack([right[..., :30].mean(axis=2), right[..., 30:].mean(axis=2)]).mean(axis=0)
    expected = recalls[1].mean() - recalls[0].mean()
    assert found.balanced_accuracy.value == pytest.approx(expected)
    alike = compare_seeds(
        [run(r[:20], labels[20:40]) for r in right[0]],
        [run(r[:20], labels[20:40]) for r in right[1]],
    )
    assert alike.balanced_accuracy.value == pytest.approx(alike.accuracy.value)


def test_seeds_may_be_unequal_in_number_and_images_in_any_order():
    right = study(np.random.default_rng(4), seeds=4, images=60)
    files = [f"{i:04}.jpg" for i in range(60)]
    order = np.random.default_rng(5).permutation(60)
    turned = run(right[1, 1][order], files=[files[i] for i in order])
    found = compare_seeds(
        [run(r) for r in right[0]], [run(right[1, 0]), turned], names=("plain", "attention")
    )
    plain = compare_seeds([run(r) for r in right[0]], [run(r) for r in right[1, :2]])
    assert found.accuracy == plain.accuracy
    assert [len(counts) for counts in found.right] == [4, 2]
    assert "attention minus plain" in found.table()


def test_groups_widen_the_limits_when_errors_cluster():
    rng = np.random.default_rng(6)
    of_patient = study(rng, images=40, shift=0.5)
    right, patient = np.repeat(of_patient, 10, axis=2), np.repeat(np.arange(40), 10)
    sides = [[run(r) for r in side] for side in right]
    alone, whole = compare_seeds(*sides), compare_seeds(*sides, groups=patient)
    assert whole.groups == 40
    assert whole.accuracy.error_of_images > 2 * alone.accuracy.error_of_images > 0
    assert whole.accuracy.error_of_seeds == alone.accuracy.error_of_seeds


def test_where_nothing_varies_no_error_is_claimed():
    same = [run([True, True, False])] * 2
    found = compare_seeds(same, same)
    assert (found.accuracy.value, found.accuracy.low, found.accuracy.p_value) == (0, None, None)
    assert "nothing varies" in found.table()


def test_dict_is_json():
    same = [run([True] * 9 + [False])] * 2
    other = [run([False] + [True] * 8 + [False])] * 2
    found = compare_seeds(same, other)
    assert found.accuracy.degrees == math.inf
    content = found.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_what_cannot_be_compared_is_refused():
    one = run([True, False])
    with pytest.raises(UserError, match="from two of each network on, not 1 of A and 2 of B"):
        compare_seeds([one], [one, one])
    with pytest.raises(UserError, match="between 0 and 1"):
        compare_seeds([one, one], [one, one], confidence=95)
    with pytest.raises(DataError, match="different images"):
        compare_seeds([one, one], [one, run([True, False], files=["a.jpg", "b.jpg"])])
