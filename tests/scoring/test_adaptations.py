"""Label-free adaptations: what they do to images and probabilities, and their names."""

import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_model
from rcmnet_jax.errors import UserError
from rcmnet_jax.scoring.adaptations import (
    AdaptedPredictor,
    all_combinations,
    combination_name,
    distort,
    parse_combination,
)
from rcmnet_jax.scoring.run_data import open_run_data


def test_alignment_brings_distorted_images_back(trained):
    """Images distorted and aligned again are nearer to what they were."""
    network = load_model(trained)
    home = open_run_data(network)
    images = home.pixels[home.rows("train")]
    lab = AdaptedPredictor(network, images)
    strange = distort(images, np.random.default_rng(2))
    aligned, _ = lab.align(strange, ("scale", "colour"))
    before, after = (np.abs(x.astype(int) - images).mean() for x in (strange, aligned))
    assert after < 0.75 * before


def test_averaged_views_do_not_depend_on_the_view(trained):
    network = load_model(trained)
    images = np.asarray(open_run_data(network).pixels[:6])
    lab = AdaptedPredictor(network, images)
    (p,) = lab.probabilities(images, [("views",)]).values()
    (turned,) = lab.probabilities(images.swapaxes(1, 2)[:, ::-1], [("views",)]).values()
    # As logarithms, since a network of one epoch is very sure.
    np.testing.assert_allclose(np.log(p), np.log(turned), rtol=1e-3, atol=1e-3)
    both = lab.probabilities(images, [(), ("views",)])
    assert list(both) == [(), ("views",)]
    assert np.abs(np.log(both[()]) - np.log(both["views",])).max() > 0.1


def test_names_of_combinations():
    assert len(all_combinations()) == 16
    for combination in all_combinations():
        assert parse_combination(combination_name(combination)) == combination
    assert parse_combination("views+bn") == ("bn", "views")
    for wrong in ("", "magic", "bn+bn", "plain+bn"):
        with pytest.raises(UserError, match="joined by"):
            parse_combination(wrong)
