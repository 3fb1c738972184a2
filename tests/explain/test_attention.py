"""Self-attention weights and CBAM gates, against what the network does with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.attention import Attention, attention_maps, cbam_gates, rollout
from rcmnet_jax.models import create_model
from tests.models.noise import noise_variables

X = np.random.default_rng(0).uniform(0, 1, (2, 16, 18, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def rcmnet():
    model = create_model("rcmnet", 3, width=8, reduction=4, stem="small", stage_sizes=(1, 1))
    return model, noise_variables(model, X.shape)


def test_four_heads_of_weights_that_sum_to_one(rcmnet):
    attention = attention_maps(*rcmnet, X)
    assert attention.size == (8, 9)
    assert attention.weights_BxNxTxT.shape == (2, 4, 72, 72)
    np.testing.assert_allclose(attention.weights_BxNxTxT.sum(-1), 1, rtol=1e-5)
    # They depend on the image and differ between heads.
    assert np.ptp(attention.weights_BxNxTxT, axis=0).max() > 1e-4
    assert np.ptp(attention.weights_BxNxTxT, axis=1).max() > 1e-4


def test_rollout_of_a_position_is_half_shortcut_half_attention():
    weights = np.zeros((1, 2, 6, 6), np.float32)
    weights[0, 0, 4, 0] = weights[0, 1, 4, 5] = 1.0
    share = rollout(Attention(jnp.asarray(weights), (2, 3)), (1, 1))
    np.testing.assert_array_equal(share[0], [[0.25, 0, 0], [0, 0.5, 0.25]])


def test_rollout_outside_the_map():
    attention = Attention(jnp.zeros((1, 4, 6, 6)), (2, 3))
    with pytest.raises(UserError, match=r"\(2, 0\) is not in the map: rows 0 to 1, columns 0 to 2"):
        rollout(attention, (2, 0))


def test_gates_are_what_the_cbam_multiplies_with(rcmnet):
    model, variables = rcmnet
    gates = cbam_gates(model, variables, X)
    assert list(gates) == ["stage1/block1/cbam", "stage2/block1/cbam"]
    channel, spatial = gates["stage2/block1/cbam"]
    assert channel.shape == (2, 16)
    assert spatial.shape == (2, 8, 9)
    _, kept = model.apply(
        variables, X, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    block = kept["intermediates"]["stage2"]["block1"]
    (x,), (y,) = block["norm2"]["__call__"], block["cbam"]["__call__"]
    np.testing.assert_allclose(
        y, x * channel[:, None, None] * spatial[..., None], rtol=1e-4, atol=1e-5
    )


def test_zero_weights_open_every_gate_by_half(rcmnet):
    model, variables = rcmnet
    gates = cbam_gates(model, jax.tree.map(jnp.zeros_like, variables), X)
    for gate in gates.values():
        np.testing.assert_array_equal(gate.channel_BxC, 0.5)
        np.testing.assert_array_equal(gate.spatial_Bxhxw, 0.5)


def test_networks_without_attention_say_which_have_it():
    model = create_model("resnet18", 3, width=8, stem="small", stage_sizes=(1,))
    variables = noise_variables(model, X.shape)
    with pytest.raises(UserError, match="no self-attention: it is in rcmnet and resnet18_m"):
        attention_maps(model, variables, X)
    with pytest.raises(UserError, match="no CBAM: it is in rcmnet and resnet18_c"):
        cbam_gates(model, variables, X)
