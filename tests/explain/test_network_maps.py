"""Maps that show nothing are told from maps that show something."""

import numpy as np
import pytest

from rcmnet_jax.explain.network_maps import map_facts


@pytest.mark.parametrize(
    ("cam", "flags"),
    [
        ([[0.0, 2.0], [1.0, -1.0]], ()),
        ([[-1.0, -2.0], [-1.5, -1.0]], ("empty",)),
        ([[0.0, 0.0], [0.0, 0.0]], ("empty", "flat")),
        ([[5.0, 5.0], [5.0, 5.02]], ("flat",)),
        ([[5.0, 5.0], [5.0, 5.2]], ()),
        ([[-5.0, -5.0], [-5.0, -5.01]], ("empty", "flat")),
        # Tiny, but it varies: that is for the raw range to tell.
        ([[0.0, 1e-9], [0.0, 0.0]], ()),
        ([[np.nan, 1.0], [0.0, 0.0]], ("not_finite",)),
    ],
)
def test_flags(cam, flags):
    assert map_facts(np.array(cam)).flags == flags


def test_the_raw_range_is_kept():
    facts = map_facts(np.array([[-3.0, 1e-7]], np.float32))
    assert facts.to_dict() == {"minimum": -3.0, "maximum": float(np.float32(1e-7)), "flags": []}
