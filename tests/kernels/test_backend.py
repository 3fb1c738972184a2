"""Tracing for another backend: other operations, the same parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.kernels import max_pool
from rcmnet_jax.kernels.backend import backend, formulated_for, plainly
from rcmnet_jax.models import create_model
from rcmnet_jax.training.state import initializer

IMAGE = (1, 32, 32, 3)


def test_the_choice_ends_with_the_block():
    assert backend() == jax.default_backend()
    with plainly():
        assert backend() == "plain"
        with formulated_for("gpu"):
            assert backend() == "gpu"
        assert backend() == "plain"
    assert backend() == jax.default_backend()


def test_plain_tracing_draws_the_same_parameters(monkeypatch):
    model, key = create_model("rcmnet", 3), jax.random.key(0)
    own = jax.jit(lambda k: model.init(k, jnp.zeros(IMAGE), train=False))(key)
    monkeypatch.setattr(max_pool, "_sliced_max_pool", lambda *_: pytest.fail("traced"))
    drawn = initializer.__wrapped__(model, IMAGE)(key)
    jax.tree.map(np.testing.assert_array_equal, drawn, own)
