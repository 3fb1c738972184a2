"""Deletion and insertion with a network whose reasons are known."""

import numpy as np
import pytest

from rcmnet_jax.explain.faithfulness import blur, deletion_and_insertion

RNG = np.random.default_rng(0)
# A bright patch on noise; the "network" looks at the patch only.
PIXELS = RNG.integers(0, 60, (3, 32, 32, 3), dtype=np.uint8)
PIXELS[:, 4:12, 4:12] = 255
TRUE = np.zeros((3, 32, 32))
TRUE[:, 4:12, 4:12] = 1


def brightness_of_the_patch(pixels):
    return pixels[:, 4:12, 4:12].mean((1, 2, 3)) / 255


@pytest.fixture(scope="module")
def curves():
    importances = {
        "true": TRUE,
        "wrong": 1 - TRUE,
        "random": RNG.uniform(0, 1, TRUE.shape),
    }
    return {
        name: deletion_and_insertion(brightness_of_the_patch, PIXELS, importance)
        for name, importance in importances.items()
    }


def test_the_ends_are_the_picture_and_the_blurred_picture(curves):
    whole = brightness_of_the_patch(PIXELS)
    gone = brightness_of_the_patch(np.stack([blur(p) for p in PIXELS]))
    for curve in curves.values():
        np.testing.assert_allclose(curve.deletion[:, 0], whole)
        np.testing.assert_allclose(curve.deletion[:, -1], gone)
        np.testing.assert_allclose(curve.insertion[:, 0], gone)
        np.testing.assert_allclose(curve.insertion[:, -1], whole)
        assert (whole > gone + 0.3).all()


def test_the_true_map_beats_chance_and_chance_beats_the_wrong_one(curves):
    deletion, insertion = (
        [curves[name].areas()[i].mean() for name in ("true", "random", "wrong")] for i in (0, 1)
    )
    assert deletion == sorted(deletion)
    assert insertion == sorted(insertion, reverse=True)
    # All of the patch is gone after a sixteenth of the pixels.
    assert curves["true"].deletion[0, 1] < 0.75


def test_summary_has_intervals_around_its_areas(curves):
    area = curves["random"].summary()["deletion_area"]
    assert area["low"] <= area["value"] <= area["high"]


def test_every_step_changes_the_same_number_of_pixels():
    seen = []

    def changed(pixels):
        seen.append((pixels != PIXELS).any(-1).sum((1, 2)))
        return np.zeros(3)

    deletion_and_insertion(changed, PIXELS, TRUE, steps=4)
    counts = np.stack(seen[::2])
    # Blurring may leave a pixel as it was.
    np.testing.assert_allclose(counts / 1024, np.tile([[0], [0.25], [0.5], [0.75], [1]], 3), 0.05)
