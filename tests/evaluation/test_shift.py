"""Forced choice, and whether two sets differ."""

import numpy as np
import pytest

from rcmnet_jax.evaluation.shift import colour_shift, domain_auc, restrict


def test_a_forced_choice_keeps_the_ratios_and_adds_up():
    p = np.array([[0.7, 0.2, 0.1], [0.98, 0.01, 0.01], [1.0, 0.0, 0.0]])
    forced = restrict(p, [1, 2])
    np.testing.assert_allclose(forced.sum(axis=1), 1)
    assert not forced[:, 0].any()
    np.testing.assert_allclose(forced[0], [0, 2 / 3, 1 / 3])
    np.testing.assert_allclose(forced[2], [0, 0.5, 0.5])


def test_sets_of_one_kind_cannot_be_told_apart_and_others_can():
    rng = np.random.default_rng(0)
    home, same = rng.normal(size=(2, 200, 64))
    assert 0.35 < domain_auc(home, same) < 0.65
    assert domain_auc(home, same + 1.0) > 0.99


def test_colours_are_compared_in_home_deviations():
    one = (np.full(3, 0.5), np.full(3, 0.1))
    shift = colour_shift(one, (np.array([0.6, 0.5, 0.4]), np.full(3, 0.2)))
    assert shift["mean_in_home_deviations"] == pytest.approx([1, 0, -1])
    assert shift["ratio_of_deviations"] == pytest.approx([2, 2, 2])
