"""Calibration: bins by hand, and temperatures that are known because the data were made so."""

import numpy as np
import pytest

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)


def two(confidence):
    """Two-class probabilities whose class 0 has the given values."""
    confidence = np.asarray(confidence, float)
    return np.column_stack([confidence, 1 - confidence])


def sampled(temperature, count=20_000, classes=5, seed=0):
    """Logits and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(count, classes))
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


def test_ece_by_hand():
    # Two bins: (0.5, 0.75] with confidences 0.6, 0.7 (one right), (0.75, 1] with 0.9 (right).
    probabilities = two([0.6, 0.7, 0.9])
    labels = np.array([0, 1, 0])
    bins = reliability_bins(labels, probabilities, 4)
    np.testing.assert_array_equal(bins.count, [0, 0, 2, 1])
    np.testing.assert_array_equal(bins.correct, [0, 0, 1, 1])
    assert np.isnan(bins.accuracy[:2]).all()
    np.testing.assert_allclose(bins.accuracy[2:], [0.5, 1])
    np.testing.assert_allclose(bins.confidence[2:], [0.65, 0.9])
    expected = 2 / 3 * abs(0.5 - 0.65) + 1 / 3 * abs(1 - 0.9)
    assert expected_calibration_error(labels, probabilities, 4) == pytest.approx(expected)


def test_limits_belong_to_the_lower_bin():
    bins = reliability_bins(np.zeros(3, int), two([0.5, 0.75, 1.0]), 4)
    np.testing.assert_array_equal(bins.count, [0, 1, 1, 1])


def test_equal_mass_bins_hold_equal_numbers():
    rng = np.random.default_rng(0)
    probabilities = two(rng.uniform(0.5, 1, 1000))
    bins = reliability_bins(np.zeros(1000, int), probabilities, 10, "mass")
    np.testing.assert_array_equal(bins.count, [100] * 10)


def test_equal_mass_keeps_ties_together_and_ignores_order():
    probabilities = two([1.0] * 90 + [0.6] * 10)
    labels = np.array([0] * 95 + [1] * 5)
    bins = reliability_bins(labels, probabilities, 5, "mass")
    assert bins.count.sum() == 100
    assert (bins.count > 0).all()
    order = np.random.default_rng(0).permutation(100)
    again = reliability_bins(labels[order], probabilities[order], 5, "mass")
    assert again.ece == pytest.approx(bins.ece, abs=1e-15)
    same = reliability_bins(np.zeros(5, int), two([1.0] * 5), 5, "mass")
    assert same.count.tolist() == [5]
    assert same.ece == 0


def test_perfectly_honest_probabilities_have_a_small_ece():
    logits, labels = sampled(1.0)
    honest = apply_temperature(logits, 1.0)
    for scheme in ("width", "mass"):
        assert expected_calibration_error(labels, honest, scheme=scheme) < 0.01
        over = apply_temperature(logits, 0.3)
        assert expected_calibration_error(labels, over, scheme=scheme) > 0.1


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_fit_finds_the_temperature_that_made_the_labels(true):
    logits, labels = sampled(true)
    fit = fit_temperature(logits, labels)
    assert fit.temperature == pytest.approx(true, rel=0.05)
    assert fit.images == 20_000


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1000.0])
def test_fit_is_the_minimum(scale):
    """Whatever the scale of the logits, no temperature nearby has a lower loss."""
    logits, labels = sampled(1.5, count=500)
    logits = logits.astype(np.float32) * np.float32(scale)
    fitted = fit_temperature(logits, labels).temperature

    def loss(temperature):
        own = apply_temperature(logits, temperature)[np.arange(500), labels]
        return -np.log(np.clip(own, 1e-300, 1)).mean()

    for factor in (0.999, 1.001):
        near = np.clip(fitted * factor, 0.05, 20)
        assert loss(fitted) <= loss(near) + 1e-12


def test_fit_undoes_a_scale():
    logits, labels = sampled(2.0, count=2000)
    base = fit_temperature(logits, labels).temperature
    assert fit_temperature(3 * logits, labels).temperature == pytest.approx(3 * base, rel=1e-9)
    assert fit_temperature(logits + 100, labels).temperature == pytest.approx(base, rel=1e-9)


def test_fit_stops_at_its_bounds():
    logits = np.tile(np.eye(3) * 5, (20, 1))
    wrong = fit_temperature(logits, np.tile([1, 2, 0], 20))
    assert (wrong.temperature, wrong.reason) == (20.0, None)  # flatter is better
    # Too little preference for the right class, and one error that costs hardly more: sharper is.
    labels = np.tile([0, 1, 2], 20)
    unsure = np.where(labels[:, None] == np.arange(3), 0.1, 0.0)
    unsure[0] = [0.0, 1e-9, 0.0]
    sharp = fit_temperature(unsure, labels)
    assert (sharp.temperature, sharp.reason) == (0.05, None)


@pytest.mark.parametrize("count", [1, 8, 49])
def test_too_few_images_get_no_temperature(count):
    fit = fit_temperature(*sampled(3.0, count=count))
    assert fit.temperature is None
    assert fit.reason == (
        f"a temperature needs at least 50 validation images, and there are {count}"
    )


def test_fifty_images_show_gross_overconfidence():
    fit = fit_temperature(*sampled(3.0, count=50))
    assert 1.5 < fit.temperature < 6
    assert fit.reason is None


def test_right_answers_alone_are_no_evidence_of_certainty():
    logits = np.tile(np.eye(3) * 5, (20, 1))
    fit = fit_temperature(logits, np.tile([0, 1, 2], 20))
    assert fit.temperature == 1.0
    assert fit.reason.startswith("all 60 validation images are right")
    assert fit_temperature(np.zeros((60, 3)), np.tile([0, 1, 2], 20)).temperature == 1.0


def test_honest_probabilities_are_left_alone_in_most_draws():
    """The test against T = 1 has a level of 5 %; without it almost every draw moves T."""
    fits = [fit_temperature(*sampled(1.0, count=60, seed=seed)) for seed in range(40)]
    kept = [fit for fit in fits if fit.temperature == 1.0]
    assert len(kept) >= 34
    assert {fit.reason for fit in kept} <= {
        "60 validation images do not show that another temperature is better",
        "all 60 validation images are right, which does not show how sure to be",
    }


def test_temperature_keeps_the_class_and_survives_large_logits():
    logits = np.array([[1000.0, 0.0, -1000.0], [0.0, 2.0, 1.0]])
    for temperature in (0.05, 1.0, 20.0):
        probabilities = apply_temperature(logits, temperature)
        assert np.isfinite(probabilities).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        np.testing.assert_array_equal(probabilities.argmax(axis=1), [0, 1])


def test_bad_arguments():
    logits, labels = sampled(1.0, count=10)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="positive number"):
            apply_temperature(logits, temperature)
    with pytest.raises(DataError, match="logits of 1 of 10 images are not finite"):
        fit_temperature(np.where(np.arange(10)[:, None] == 3, np.nan, logits), labels)
    with pytest.raises(DataError, match="9 labels but 10 rows of logits"):
        fit_temperature(logits, labels[:9])
    with pytest.raises(UserError, match="at least 1 bin"):
        reliability_bins(labels, apply_temperature(logits, 1.0), 0)
    with pytest.raises(UserError, match="choose width or mass"):
        reliability_bins(labels, apply_temperature(logits, 1.0), 5, "depth")
