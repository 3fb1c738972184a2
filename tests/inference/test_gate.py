"""The gate: distances that can be worked out by hand, thresholds that mean what they say."""

import jax
import numpy as np
import pytest

from rcmnet_jax.errors import DataError
from rcmnet_jax.inference.gate import (
    ACCEPT,
    LEAST_CONTRAST,
    NOT_A_CELL,
    REVIEW,
    UNLIKE,
    Distances,
    Gate,
    fit_confidence,
    fit_gate,
)
from rcmnet_jax.inference.outputs import nucleus_contrast


def two_classes(count: int, seed: int = 0):
    """Features around (0, 0, ...) and (9, 0, ...), colours around grey, labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    features = rng.standard_normal((count, 8)) + 9.0 * np.eye(8)[0] * labels[:, None]
    return features, 0.5 + 0.1 * rng.standard_normal((count, 6)), labels


@pytest.fixture(scope="module")
def gate() -> Gate:
    rng = np.random.default_rng(5)
    features, colours, _ = two_classes(400, seed=1)
    return fit_gate(
        train=two_classes(2000),
        val=(features, colours),
        val_confidence=rng.uniform(0.5, 1, 400),
        val_correct=rng.uniform(0, 1, 400) < 0.98,
    )


def test_a_distance_worked_out_by_hand():
    # Two points a class, one apart from the mean along each axis: the covariance is the identity.
    x = np.array([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])
    x = np.concatenate([x, x + 10])
    labels = np.repeat([0, 1], 4)
    distances = Distances.fit(x, labels, 0.0)
    at = np.array([[0.0, 0], [3, 4], [10, 10], [10, 12]])
    np.testing.assert_allclose(distances.of(at), np.array([0, 5, 0, 2]) / np.sqrt(2), atol=1e-5)


def test_scale_and_correlation_of_the_features_do_not_matter():
    features, _, labels = two_classes(500)
    plain = Distances.fit(features, labels, 0.0).of(features[:50])
    for seed in range(5):
        turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((8, 8)))[0]
        # A thousand apart: the whitening is kept in float32, where this costs two of seven digits.
        mixing = np.diag(np.logspace(-1.5, 1.5, 8)) @ turn
        mixed = Distances.fit(features @ mixing, labels, 0.0).of(features[:50] @ mixing)
        np.testing.assert_allclose(mixed, plain, rtol=1e-4)


def test_validation_images_are_accepted_about_as_often_as_asked(gate):
    features, colours, _ = two_classes(1000, seed=2)
    score = gate.score(features, colours)
    # Each of two distances is beyond its 98 % quantile for two in a hundred.
    assert 0.01 < (score > 1).mean() < 0.08
    assert (score > gate.unlike).sum() == 0


def test_what_is_unlike_training_is_no_cell_only_where_nothing_shows_one(gate):
    features, colours, _ = two_classes(50, seed=3)
    sure, nucleus = np.ones(50), np.full(50, 0.3)
    # Either description suffices.
    for far in (gate.score(features + 40, colours), gate.score(features, colours - 3)):
        assert set(gate.status(far, sure, nucleus)) == {UNLIKE}
        assert set(gate.status(far, sure, 0 * nucleus)) == {NOT_A_CELL}


def test_each_status_has_its_reason(gate):
    score = np.array([0.5, 0.5, 1.01, gate.unlike * 1.01, gate.unlike * 1.01])
    confidence = np.array([1.0, gate.confidence - 0.01, 1.0, 1.0, 0.0])
    # An accepted image may be pale.
    contrast = np.array([0.0, 0.3, 0.3, 0.3, 0.01])
    expected = [ACCEPT, REVIEW, REVIEW, UNLIKE, NOT_A_CELL]
    assert gate.status(score, confidence, contrast).tolist() == expected


def pictures() -> dict[str, np.ndarray]:
    """(64, 64, 3) in [0, 1]: what no laboratory would send, and sketches of what it would."""
    y, x = np.mgrid[:64, :64, :1][:2] / 63
    grey = np.ones((64, 64, 3))
    radius = np.hypot(y - 0.5, x - 0.45)
    nucleus, cytoplasm = np.array([0.4, 0.2, 0.6]), np.array([0.8, 0.75, 0.85])
    cell = np.where(radius < 0.2, nucleus, np.where(radius < 0.35, cytoplasm, 0.92 * grey))
    small = np.where(np.hypot(y - 0.5, x - 0.5) < 0.12, [0.6, 0.4, 0.7], 0.9 * grey)
    red_cells = np.where((np.hypot(y % 0.4 - 0.2, x % 0.4 - 0.2) < 0.15), [0.88, 0.55, 0.5], 0.92)
    return {
        "black": 0 * grey, "white": grey, "grey": 0.5 * grey, "down": y * grey,
        "aslant": (x + y) / 2 * grey, "sunset": np.concatenate([1 - 0.3 * y, 0.6 - y / 2, y], 2),
        "red cells": red_cells, "cell": cell, "platelet": small,
    }  # fmt: skip


@pytest.mark.parametrize("name", pictures())
def test_nuclei_and_platelets_show_and_empty_fields_do_not(name):
    image = np.float32(pictures()[name])
    size = (360, 363) if name in ("cell", "black") else (64, 64)
    image = np.asarray(jax.image.resize(image, (*size, 3), "nearest"))
    contrast = float(nucleus_contrast(image[None])[0])
    assert (contrast >= LEAST_CONTRAST) == (name in ("cell", "platelet")), contrast


def test_the_gate_survives_json_and_arrays(gate):
    again = Gate.from_parts(gate.to_dict(), gate.arrays())
    features, colours, _ = two_classes(20, seed=4)
    np.testing.assert_array_equal(again.score(features, colours), gate.score(features, colours))
    assert again.to_dict() == gate.to_dict()


@pytest.mark.parametrize(
    ("values", "arrays"),
    [
        ({"version": 2}, {}),
        ({"units": None}, {}),
        ({"confidence": "high"}, {}),
        ({}, {"colour/mean": None}),
        ({}, {"colour/whitening": np.eye(5, dtype=np.float32)}),
    ],
)
def test_a_gate_that_is_none_is_refused(gate, values, arrays):
    arrays = {k: v for k, v in {**gate.arrays(), **arrays}.items() if v is not None}
    with pytest.raises(DataError):
        Gate.from_parts({**gate.to_dict(), **values}, arrays)


def test_flat_features_and_missing_classes_do_not_divide_by_zero():
    features, colours, labels = np.ones((50, 4)), np.ones((50, 6)), np.zeros(50, int)
    gate = fit_gate(
        train=(features, colours, labels),
        val=(features, colours),
        val_confidence=np.ones(50),
        val_correct=np.ones(50, bool),
    )
    assert np.isfinite(gate.score(features, colours)).all()
    assert (gate.score(features + 1, colours) > gate.unlike).all()


def test_no_images_is_an_error():
    empty = np.empty((0, 4)), np.empty((0, 6))
    with pytest.raises(DataError, match="none were given"):
        fit_gate(
            train=(*empty, np.empty(0)), val=empty, val_confidence=empty[0], val_correct=empty[0]
        )


def test_a_gate_needs_fifty_validation_images():
    features, colours, _ = two_classes(49, seed=1)
    with pytest.raises(DataError, match=r"a gate needs at least 50 validation images.* are 49"):
        fit_gate(
            train=two_classes(400),
            val=(features, colours),
            val_confidence=np.ones(49),
            val_correct=np.ones(49, bool),
        )


class TestConfidence:
    def test_the_lowest_that_reaches_the_target(self):
        confidence = np.linspace(1, 0.01, 100)
        correct = np.ones(100, bool)
        correct[97:] = False
        # 97 right, then errors: 97/98 = 0.9898 is below the target.
        assert fit_confidence(confidence, correct) == confidence[96]

    def test_all_right_accepts_all(self):
        assert fit_confidence(np.array([0.9, 0.4, 0.7]), np.ones(3, bool)) == 0.4

    def test_never_reviews_more_than_its_share(self):
        confidence = np.linspace(0, 1, 1000)
        threshold = fit_confidence(confidence, np.zeros(1000, bool))
        assert (confidence < threshold).mean() <= 0.05

    def test_ties_stand_or_fall_together(self):
        confidence = np.array([0.9] * 50 + [0.8] * 50)
        correct = np.array([True] * 75 + [False] * 25)
        assert fit_confidence(confidence, correct) == 0.8

    def test_none(self):
        assert fit_confidence(np.empty(0), np.empty(0)) == 0.0
