"""The sanity check catches maps that do not look at the weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.explain.randomisation import (
    cascade,
    modules_from_the_top,
    rank_correlation,
    similarity_by_module,
)
from rcmnet_jax.models import create_model
from tests.models.noise import shapes_of


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("rcmnet", ["head", "bot", "stage4", "stage3", "stage2", "stage1", "stem"]),
        ("alexnet", ["head", "fc2", "fc1", "conv5", "conv4", "conv3", "conv2", "conv1"]),
    ],
)
def test_modules_from_the_classifier_down(name, modules):
    model = create_model(name, 3)
    shapes = shapes_of(model, (1, 64, 64, 3))
    assert modules_from_the_top(model, shapes, jnp.zeros((1, 64, 64, 3))) == modules


def test_the_cascade_sets_back_one_module_more_each_time():
    trained = {"params": {"a": 1, "b": 2}, "batch_stats": {"a": 3}}
    fresh = {"params": {"a": 10, "b": 20}, "batch_stats": {"a": 30}}
    steps = list(cascade(trained, fresh, ["b", "a"]))
    assert steps == [
        ("b", {"params": {"a": 1, "b": 20}, "batch_stats": {"a": 3}}),
        ("a", {"params": {"a": 10, "b": 20}, "batch_stats": {"a": 30}}),
    ]
    assert trained["params"] == {"a": 1, "b": 2}


def test_maps_of_the_image_stay_and_maps_of_the_weights_change():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (20, 8, 8))
    draw = lambda seed: {"params": {"k": np.random.default_rng(seed).normal(size=(8, 8))}}  # noqa: E731
    trained, fresh = draw(1), draw(2)
    edges = similarity_by_module(lambda v: images, trained, fresh, ["k"])
    np.testing.assert_allclose(edges["k"], 1)
    weighted = similarity_by_module(lambda v: images * v["params"]["k"], trained, fresh, ["k"])
    assert abs(weighted["k"].mean()) < 0.5


def test_rank_correlation_against_scipy():
    stats = pytest.importorskip("scipy.stats", exc_type=ImportError)
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 5, (2, 6, 4, 4)).astype(float)  # many ties
    expected = [stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected, rtol=1e-9)


def test_rank_correlation_sees_order_only_and_no_map_of_one_value():
    cam = np.random.default_rng(4).uniform(0, 1, (1, 3, 3))
    np.testing.assert_allclose(rank_correlation(cam, np.exp(5 * cam)), 1)
    np.testing.assert_allclose(rank_correlation(cam, -cam), -1)
    assert np.isnan(rank_correlation(cam, np.ones((1, 3, 3)))[0])
