"""Class activation maps from a feature map A and the gradient G = dS/dA: Grad-CAM and relatives.

In a network that ends in a global average and one dense layer, G at the last map is the same at
every position, and HiResCAM equals Grad-CAM. The methods differ at earlier layers, and in VGG19 and
AlexNet.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


def grad_cam_map(a_BxhxwxC: jax.Array, g_BxhxwxC: jax.Array) -> jax.Array:
    """``sum_k alpha_k A_k``, ``alpha_k = mean_ij G_ijk`` (Selvaraju et al. 2017, Eq. 1-2)."""
    return jnp.einsum("bhwc,bc->bhw", a_BxhxwxC, g_BxhxwxC.mean((1, 2)))


def hires_cam_map(a_BxhxwxC: jax.Array, g_BxhxwxC: jax.Array) -> jax.Array:
    """``sum_k G_k A_k`` at every position (Draelos & Carin 2020).

    Where the score is linear in A, the map sums to the score without its bias.
    """
    return (a_BxhxwxC * g_BxhxwxC).sum(-1)


def layer_cam_map(a_BxhxwxC: jax.Array, g_BxhxwxC: jax.Array) -> jax.Array:
    """``sum_k ReLU(G_k) A_k`` (Jiang et al. 2021), sharp at early layers; no negative evidence."""
    return (nn.relu(g_BxhxwxC) * a_BxhxwxC).sum(-1)


def grad_cam_pp_map(a_BxhxwxC: jax.Array, g_BxhxwxC: jax.Array) -> jax.Array:
    """Grad-CAM++ (Chattopadhay et al. 2018): positions weighted so that small objects count.

    ``sum_k w_k A_k``, ``w_k = sum_ij a_ijk ReLU(G_ijk)``, ``a = G^2 / (2 G^2 + sum_ij(A) G^3)``,
    from the derivatives of exp(S) without their common factor. No constant is added to the
    denominator, so the scale of the gradient does not change the shape of the map.
    """
    square, cube = g_BxhxwxC**2, g_BxhxwxC**3
    below = 2 * square + a_BxhxwxC.sum((1, 2), keepdims=True) * cube
    share = jnp.where(below != 0, square / jnp.where(below != 0, below, 1), 0)
    weights_BxC = (share * nn.relu(g_BxhxwxC)).sum((1, 2))
    return jnp.einsum("bhwc,bc->bhw", a_BxhxwxC, weights_BxC)


def eigen_cam_map(a_BxhxwxC: jax.Array, g_BxhxwxC: jax.Array) -> jax.Array:
    """The first principal component of A over positions (Muhammad & Yeasin 2020).

    It depends on no class and no gradient: it shows what the layer responds to most. The sign,
    which the decomposition leaves open, is chosen so that the sum is positive.
    """
    del g_BxhxwxC
    batch, height, width, channels = a_BxhxwxC.shape
    a_BxTxC = a_BxhxwxC.reshape(batch, -1, channels)
    # The smaller of the two Gram matrices has the same leading direction.
    if height * width <= channels:
        values, vectors = jnp.linalg.eigh(jnp.einsum("btc,bsc->bts", a_BxTxC, a_BxTxC))
        cam_BxT = vectors[..., -1] * jnp.sqrt(nn.relu(values[:, -1:]))
    else:
        _, vectors = jnp.linalg.eigh(jnp.einsum("btc,btd->bcd", a_BxTxC, a_BxTxC))
        cam_BxT = jnp.einsum("btc,bc->bt", a_BxTxC, vectors[..., -1])
    sign_Bx1 = jnp.where(cam_BxT.sum(1, keepdims=True) < 0, -1.0, 1.0)
    return (sign_Bx1 * cam_BxT).reshape(batch, height, width)


# From A and G, (B, h, w, C) float32 each, to the signed map (B, h, w).
METHODS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "grad_cam": grad_cam_map,
    "grad_cam_pp": grad_cam_pp_map,
    "hires_cam": hires_cam_map,
    "layer_cam": layer_cam_map,
    "eigen_cam": eigen_cam_map,
}
