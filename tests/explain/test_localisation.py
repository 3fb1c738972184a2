"""Pointing and energy on maps whose answer is known."""

import numpy as np
import pytest

from rcmnet_jax.errors import DataError
from rcmnet_jax.explain.boxes import Box
from rcmnet_jax.explain.localisation import compare_localisation, localise, mean_interval, spot
from rcmnet_jax.models.grid import Grid

SIZE = (64, 64)
MIDDLE = Box(16, 16, 48, 48)


def test_a_map_of_one_value_has_the_boxes_share_of_the_picture():
    result = localise(np.ones((1, 4, 4)), [MIDDLE], SIZE, None)
    assert result.area[0] == 0.25
    np.testing.assert_allclose(result.energy, 0.25, rtol=1e-6)


def test_all_in_the_box_and_nothing_in_the_box():
    cams = np.zeros((2, 64, 64))
    cams[0, 20:30, 20:30] = 1
    cams[1, :10, :10] = 1
    result = localise(cams, [MIDDLE, MIDDLE], SIZE, Grid(1, 0))
    np.testing.assert_allclose(result.energy, [1, 0])
    np.testing.assert_array_equal(result.hit, [True, False])


def test_evidence_against_counts_as_nothing():
    cam = np.zeros((1, 64, 64))
    cam[0, 20, 20], cam[0, 0, 0] = 1, -100
    result = localise(cam, [MIDDLE], SIZE, Grid(1, 0))
    np.testing.assert_allclose(result.energy, 1)


def test_where_the_cells_lie_decides():
    """The 2x2 map of a 64-pixel picture: its last cell looks at the middle, not at the corner."""
    cam = np.array([[[0.0, 0.0], [0.0, 1.0]]])
    box = [Box(20, 20, 44, 44)]
    assert localise(cam, box, SIZE, Grid(32, 0)).hit[0]
    assert not localise(cam, box, SIZE, None).hit[0]


def test_empty_maps_miss_and_have_no_energy():
    result = localise(np.array([np.zeros((2, 2)), -np.ones((2, 2))]), [MIDDLE] * 2, SIZE, None)
    assert not result.hit.any()
    assert np.isnan(result.energy).all()
    summary = result.summary()
    assert summary["empty"] == 2
    assert summary["pointing"]["k"] == 0
    assert summary["energy"]["value"] is None


def test_the_control_spot_points_at_the_middle():
    result = localise(spot(*SIZE)[None], [MIDDLE], SIZE, None)
    assert result.hit[0]
    assert result.energy[0] > 2 * result.area[0]


def test_summary_counts_and_intervals():
    rng = np.random.default_rng(0)
    cams = rng.uniform(0, 1, (60, 4, 4))
    summary = localise(cams, [MIDDLE] * 60, SIZE, None).summary()
    assert summary["pointing"]["n"] == 60
    assert summary["pointing"]["low"] < summary["pointing"]["value"] < summary["pointing"]["high"]
    assert summary["energy"]["low"] < summary["energy"]["value"] < summary["energy"]["high"]


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        interval = mean_interval(rng.exponential(1.0, 50), samples=400)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.98


def test_a_paired_comparison_sees_what_two_intervals_hide():
    rng = np.random.default_rng(2)
    base = rng.uniform(0.2, 0.8, 100)

    def of(energy, hit):
        from rcmnet_jax.explain.localisation import Localisation

        return Localisation(hit, energy, np.full(100, 0.25))

    better = of(base + 0.02 + rng.normal(0, 0.01, 100), np.arange(100) < 70)
    worse = of(base, np.arange(100) < 60)
    compared = compare_localisation(better, worse)
    assert compared["energy_difference"]["low"] > 0
    assert (compared["hits_only_first"], compared["hits_only_second"]) == (10, 0)
    assert compared["mcnemar_p"] < 0.01
    back = compare_localisation(worse, better)
    assert back["energy_difference"]["value"] == -compared["energy_difference"]["value"]


def test_maps_and_boxes_must_pair():
    with pytest.raises(DataError, match="2 maps and 1 boxes"):
        localise(np.ones((2, 4, 4)), [MIDDLE], SIZE, None)
    with pytest.raises(DataError, match="holds no pixel"):
        localise(np.ones((1, 4, 4)), [Box(1.1, 1.1, 1.2, 1.2)], SIZE, None)
