"""What another microscope, stain and camera do to an image: pure functions of pixels and strengths.

Each takes images as planes, float32 (B, 3, H, W) in [0, 1], and its strengths image by image, and
draws nothing; `rcmnet_jax.data.augment` draws the strengths. Planes, because mixing colours is then
a matrix product and every loop over pixels runs along memory (docs/decisions/0072).
"""

import jax
import jax.numpy as jnp
import numpy as np

# Luma of Rec. 601, as Pillow's "L".
LUMA = (0.299, 0.587, 0.114)
# Side of a JPEG block, and the quantisation of its first coefficient and of each step in frequency,
# in grey levels: near the standard's luminance table at quality 50.
_BLOCK, _STEP_FIRST, _STEP_SLOPE = 8, 10.0, 6.4
# A quantisation too fine to change an 8-bit image.
_FINEST = 1e-3


def absorb(x_Bx3xHxW: jax.Array, factor_Bx3: jax.Array) -> jax.Array:
    """Scales the optical density, -log x, of each channel, as more or less stain does."""
    density = jnp.log(jnp.maximum(x_Bx3xHxW, 1 / 255))
    return jnp.exp(factor_Bx3[:, :, None, None] * density)


def mix_channels(x_Bx3xHxW: jax.Array, matrix_Bx3x3: jax.Array) -> jax.Array:
    """New channels as weighted sums of the old; the matrix has a row for each new one."""
    batch, _, height, width = x_Bx3xHxW.shape
    mixed = matrix_Bx3x3 @ x_Bx3xHxW.reshape(batch, 3, height * width)
    return mixed.reshape(x_Bx3xHxW.shape)


def illuminate(x_Bx3xHxW: jax.Array, gain_Bx3: jax.Array, slope_Bx3x2: jax.Array) -> jax.Array:
    """Multiplies each channel by a plane over the image, which is ``gain`` at the centre.

    Args:
      x_Bx3xHxW: the images.
      gain_Bx3: factor of each channel.
      slope_Bx3x2: by what share of ``gain`` the factor is larger at the lower and the right edge.
    """
    height, width = x_Bx3xHxW.shape[2:]
    down, right = (slope_Bx3x2[:, :, axis, None, None] for axis in range(2))
    y = jnp.linspace(-1, 1, height)[None, None, :, None]
    x = jnp.linspace(-1, 1, width)[None, None, None]
    return x_Bx3xHxW * (gain_Bx3[:, :, None, None] * (1 + down * y + right * x))


def bend(x_Bx3xHxW: jax.Array, gamma_Bx3: jax.Array) -> jax.Array:
    """A camera's response: a curve from 0 to 1 that maps 1/2 to ``0.5 ** gamma``.

    Schlick's rational curve instead of the power: a division instead of two transcendental
    functions, and dark pixels are not torn apart where gamma is small. Cuts to [0, 1] before.
    """
    middle = (0.5**gamma_Bx3)[:, :, None, None]
    x = jnp.clip(x_Bx3xHxW, 0, 1)
    return x / ((1 / middle - 2) * (1 - x) + 1)


def focus(x_Bx3xHxW: jax.Array, blur_B: jax.Array, sharpen_B: jax.Array) -> jax.Array:
    """Blurs with a Gaussian or, where ``sharpen`` is above 0, adds the difference to the blurred.

    One matrix over the rows and one over the columns, so the cost does not depend on the blur.
    Images continue mirrored beyond their borders.

    Args:
      x_Bx3xHxW: the images.
      blur_B: standard deviation in pixels.
      sharpen_B: weight of the difference.
    """
    rows, columns = (_focus_matrix(size, blur_B, sharpen_B) for size in x_Bx3xHxW.shape[2:])
    x = jnp.einsum("bxw,bchw->bchx", columns, x_Bx3xHxW)
    return jnp.einsum("byh,bchx->bcyx", rows, x)


def _focus_matrix(size: int, blur_B: jax.Array, sharpen_B: jax.Array) -> jax.Array:
    out, source = np.mgrid[:size, :size]
    # Distances to a pixel and to its mirror images beyond both borders.
    distances = np.stack([out - source, out + source + 1, out + source + 1 - 2 * size])
    deviation = jnp.maximum(blur_B, 0.1)[:, None, None, None]
    weight = jnp.exp(-0.5 * (jnp.asarray(distances, jnp.float32)[None] / deviation) ** 2).sum(
        axis=1
    )
    blurred = weight / weight.sum(axis=2, keepdims=True)
    amount = sharpen_B[:, None, None]
    return jnp.where(amount > 0, (1 + amount) * jnp.eye(size)[None] - amount * blurred, blurred)


def warp(
    x_Bx3xHxW: jax.Array, zoom_B: jax.Array, angle_B: jax.Array, shift_Bx2: jax.Array
) -> jax.Array:
    """Zooms and turns about the centre and then shifts, in one bilinear resampling.

    Beyond the border lies the mirrored image: plain ground has an edge that no camera draws, and
    the last pixel repeated makes stripes.

    Args:
      x_Bx3xHxW: the images.
      zoom_B: size after over size before.
      angle_B: radians, counter-clockwise.
      shift_Bx2: pixels down and to the right.
    """
    height, width = x_Bx3xHxW.shape[2:]
    down, right = (shift_Bx2[:, axis, None, None] for axis in range(2))
    y = jnp.arange(height)[None, :, None] - (height - 1) / 2 - down
    x = jnp.arange(width)[None, None, :] - (width - 1) / 2 - right
    cos, sin = (f(angle_B)[:, None, None] / zoom_B[:, None, None] for f in (jnp.cos, jnp.sin))
    source_y = _mirrored(cos * y + sin * x + (height - 1) / 2, height)
    source_x = _mirrored(cos * x - sin * y + (width - 1) / 2, width)
    top, left = (jnp.floor(source).astype(jnp.int32) for source in (source_y, source_x))
    bottom, beside = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    down, right = (source_y - top)[..., None], (source_x - left)[..., None]
    # Channels last, so that one look-up fetches all three.
    pick = jax.vmap(lambda image, i, j: image.at[i, j].get(mode="promise_in_bounds"))
    x_BxHxWx3 = x_Bx3xHxW.transpose(0, 2, 3, 1)
    upper = (1 - right) * pick(x_BxHxWx3, top, left) + right * pick(x_BxHxWx3, top, beside)
    lower = (1 - right) * pick(x_BxHxWx3, bottom, left) + right * pick(x_BxHxWx3, bottom, beside)
    return ((1 - down) * upper + down * lower).transpose(0, 3, 1, 2)


def _mirrored(position: jax.Array, size: int) -> jax.Array:
    """Positions brought into ``[0, size - 1]`` by mirrors at the outer edges of the pixels."""
    inside = size - 0.5 - jnp.abs(jnp.mod(position + 0.5, 2 * size) - size)
    return jnp.clip(inside, 0, size - 1)


def quantise_blocks(x_Bx3xHxW: jax.Array, coarseness_B: jax.Array) -> jax.Array:
    """Rounds the cosine coefficients of 8x8 blocks of each channel, as JPEG does; cuts to [0, 1].

    Args:
      x_Bx3xHxW: the images; below and to the right they are continued to whole blocks.
      coarseness_B: of the rounding, about 1 at JPEG's quality 50 and 0.2 at 90; 0 rounds to less
        than a grey level.
    """
    batch, _, height, width = x_Bx3xHxW.shape
    down, across = -(-height // _BLOCK), -(-width // _BLOCK)
    filled = ((0, 0), (0, 0), (0, down * _BLOCK - height), (0, across * _BLOCK - width))
    x = jnp.pad(x_Bx3xHxW, filled, mode="edge").reshape(batch, 3, down, _BLOCK, across, _BLOCK)
    blocks = x.transpose(0, 1, 2, 4, 3, 5).reshape(batch, 3, down, across, _BLOCK**2)
    cosines, table = _cosine_transform()
    step = (
        table[None, None, None, None]
        * jnp.maximum(coarseness_B, _FINEST)[:, None, None, None, None]
    )
    blocks = (jnp.round(blocks @ cosines.T / step) * step) @ cosines
    x = blocks.reshape(batch, 3, down, across, _BLOCK, _BLOCK).transpose(0, 1, 2, 4, 3, 5)
    x = x.reshape(batch, 3, down * _BLOCK, across * _BLOCK)[:, :, :height, :width]
    return jnp.clip(x, 0, 1)


def _cosine_transform() -> tuple[np.ndarray, np.ndarray]:
    """The cosine transform of a flattened block, (64, 64), and the steps of rounding, (64,)."""
    order = np.arange(_BLOCK)
    scale = np.sqrt(np.where(order == 0, 1, 2) / _BLOCK)
    line = scale[:, None] * np.cos(np.pi * (2 * order + 1) * order[:, None] / (2 * _BLOCK))
    table = (_STEP_FIRST + _STEP_SLOPE * np.add.outer(order, order).ravel()) / 255
    return np.kron(line, line).astype(np.float32), table.astype(np.float32)


def to_grey(x_Bx3xHxW: jax.Array, grey_B: jax.Array) -> jax.Array:
    """Luminance in all channels, ``grey`` of it: 0 leaves the colours, 1 takes all."""
    share = grey_B[:, None, None, None]
    luminance = sum(weight * x_Bx3xHxW[:, c : c + 1] for c, weight in enumerate(LUMA))
    return (1 - share) * x_Bx3xHxW + share * luminance
