"""The formulas on maps small enough to check by hand or by numpy."""

import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain import class_maps
from rcmnet_jax.explain.methods import METHODS
from tests.explain.pooled_linear import PooledLinear, linear_case

RNG = np.random.default_rng(0)
A = RNG.uniform(0, 1, (2, 3, 4, 5)).astype(np.float32)
G = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)


def test_hires_cam_is_the_product_at_every_position():
    np.testing.assert_allclose(METHODS["hires_cam"](A, G), np.einsum("bhwc,bhwc->bhw", A, G), 1e-5)


def test_where_the_gradient_is_the_same_everywhere_hires_cam_is_grad_cam():
    flat = np.broadcast_to(G[:, :1, :1], G.shape)
    cams = [METHODS[name](A, flat) for name in ("hires_cam", "grad_cam")]
    np.testing.assert_allclose(*cams, rtol=1e-5)


def test_layer_cam_leaves_evidence_against_out():
    cam = METHODS["layer_cam"](A, G)
    np.testing.assert_allclose(cam, (np.maximum(G, 0) * A).sum(-1), rtol=1e-5)
    assert (np.asarray(cam) >= 0).all()


def test_grad_cam_pp_as_published():
    """Eq. 10 and 19, written out in loops."""
    expected = np.zeros(A.shape[:3])
    for b in range(2):
        for k in range(5):
            a, g = A[b, ..., k].astype(float), G[b, ..., k].astype(float)
            alpha = g**2 / (2 * g**2 + a.sum() * g**3)
            expected[b] += (alpha * np.maximum(g, 0)).sum() * a
    np.testing.assert_allclose(METHODS["grad_cam_pp"](A, G), expected, rtol=1e-3)


def test_grad_cam_pp_of_a_dead_channel_is_no_nan():
    g = G.copy()
    g[..., 2] = 0
    assert np.isfinite(METHODS["grad_cam_pp"](A, g)).all()


@pytest.mark.parametrize("positions", ["few", "many"])
def test_eigen_cam_is_the_leading_singular_vector(positions):
    a = A if positions == "many" else A[:, :2, :2]
    cam = np.asarray(METHODS["eigen_cam"](a, None))
    for b in range(2):
        u, s, _ = np.linalg.svd(a[b].reshape(-1, 5))
        np.testing.assert_allclose(np.abs(cam[b].ravel()), np.abs(u[:, 0]) * s[0], rtol=1e-3)
        assert cam[b].sum() > 0


def test_class_maps_take_the_method_and_give_the_logits():
    model, variables, x = linear_case()
    ids = np.array([0, 3, 4])
    maps = class_maps(model, variables, x, ids, method="layer_cam", relu=False)
    kernel = np.asarray(variables["params"]["head"]["kernel"])[:, ids].T / (4 * 6)
    expected = np.einsum("bhwc,bc->bhw", x, np.maximum(kernel, 0))
    np.testing.assert_allclose(maps.cam_Bxhxw, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps.logits_BxK, model.apply(variables, x, train=False), rtol=1e-5)


def test_an_unknown_method_names_the_known_ones():
    model, variables, x = linear_case()
    assert isinstance(model, PooledLinear)
    with pytest.raises(UserError, match="'cam' is not one of grad_cam, grad_cam_pp"):
        class_maps(model, variables, x, np.array([0, 1, 2]), method="cam")
