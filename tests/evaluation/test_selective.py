"""Risk, coverage and the threshold of a review budget."""

import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.selective import review_at_budget, review_threshold, risk_coverage


def two_class(confidence, right):
    """Probabilities with these confidences, and labels that make them right or wrong."""
    confidence = np.asarray(confidence, float)
    return np.where(right, 0, 1), np.stack([confidence, 1 - confidence], axis=1)


def test_the_curve_by_hand():
    labels, p = two_class([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    curve = risk_coverage(labels, p)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # Errors last: 0, 0, 1/3, 2/4.
    assert curve.best_area == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_the_area_does_not_depend_on_the_order_of_equal_confidences():
    right = np.array([True, False, True, True, False, True])
    labels, p = two_class(np.full(6, 0.75), right)
    for order in (np.arange(6), np.arange(6)[::-1]):
        assert risk_coverage(labels[order], p[order]).area == pytest.approx(2 / 6)


def test_a_budget_is_never_overdrawn_on_the_images_it_was_chosen_on():
    rng = np.random.default_rng(0)
    for budget in (0, 0.05, 0.3, 0.99):
        confidence = rng.choice([0.6, 0.7, 0.8, 0.9], 120)
        labels, p = two_class(confidence, rng.random(120) < 0.8)
        review = review_at_budget(labels, p, budget, validation=p, chosen_on="these")
        assert review.reviewed.k <= budget * 120
        # Any higher confidence that occurs would overdraw it.
        higher = confidence[confidence > review.threshold]
        if higher.size:
            assert (confidence < higher.min()).sum() > budget * 120


def test_counts_add_up():
    labels, p = two_class([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    _, validation = two_class(np.linspace(0.55, 0.95, 11), True)  # the middle one is 0.75
    review = review_at_budget(labels, p, 0.5, validation=validation, chosen_on="validation")
    assert review.threshold == pytest.approx(0.75)
    assert (review.reviewed.k, review.errors_left.k, review.errors_left.n) == (2, 1, 2)
    assert (review.errors_caught.k, review.errors_caught.n) == (1, 2)
    assert review.to_dict()["chosen_on"] == "validation"
    assert review.to_dict()["reason"] is None


@pytest.mark.parametrize(("budget", "needed"), [(0.01, 500), (0.05, 100), (0.1, 50), (0.2, 25)])
def test_thresholds_of_small_budgets_need_many_images(budget, needed):
    labels, p = two_class(np.linspace(0.5, 1, needed), np.ones(needed, bool))
    assert review_at_budget(labels, p, budget, validation=p, chosen_on="v").reviewed.k == 5
    review = review_at_budget(labels, p, budget, validation=p[1:], chosen_on="v")
    assert (review.threshold, review.reviewed, review.to_dict()["errors_left"]) == (None,) * 3
    assert review.reason == (
        f"a threshold for a review budget of {100 * budget:g} % needs at least {needed} validation"
        f" images, and there are {needed - 1}"
    )
    with pytest.raises(UserError, match=f"at least {needed} validation images"):
        review_threshold(p[1:], budget)


@pytest.mark.parametrize("budget", [-0.1, 1, float("nan")])
def test_a_budget_is_a_share(budget):
    with pytest.raises(UserError, match="share"):
        review_threshold(np.array([[0.5, 0.5]]), budget)
