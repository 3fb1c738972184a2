"""Augmentation on device, inside the compiled training step. Never on validation or test.

Views are exact pixel moves on uint8: the paper's six as an offline-equivalent expansion of the
train split (Table 3), or a random element of the dihedral group per image and step. Distortions
(`rcmnet_jax.data.distortions`) stand for other microscopes, stains and cameras. What is drawn is a
function of the step's key alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.data import distortions
from rcmnet_jax.data.augment_settings import DIHEDRAL, DISTORTIONS, Augmentation

# Standard deviation of the blurred image that sharpening takes away, as a share of the side.
_SHARPENED_SCALE = 1 / 64


def apply_views(images_BxHxWx3: jax.Array, view_B: jax.Array) -> jax.Array:
    """Moves each image to its element of the dihedral group.

    Where height and width differ, a transposed image is cut or edge-padded by the difference,
    evenly on both sides, so the shape stays.

    Args:
      images_BxHxWx3: any dtype; the pixels are moved, never interpolated.
      view_B: int32 rows of `DIHEDRAL`.
    """
    transpose, flip_rows, flip_cols = (
        jnp.asarray([element[i] for element in DIHEDRAL])[view_B][:, None, None, None]
        for i in range(3)
    )
    height, width = images_BxHxWx3.shape[1:3]
    turned = _fit(images_BxHxWx3.swapaxes(1, 2), height, width)
    x = jnp.where(transpose, turned, images_BxHxWx3)
    x = jnp.where(flip_rows, x[:, ::-1], x)
    return jnp.where(flip_cols, x[:, :, ::-1], x)


def draw_views(view_B: jax.Array, key: jax.Array, augmentation: Augmentation) -> jax.Array:
    """The views, int32 (B,), that `augment` shows with this key: prescribed, or drawn."""
    if augmentation.views != "dihedral":
        return view_B
    view_key, _, _ = jax.random.split(key, 3)
    return jax.random.randint(view_key, view_B.shape, 0, len(DIHEDRAL))


def augment(
    images_BxHxWx3: jax.Array, view_B: jax.Array, key: jax.Array, augmentation: Augmentation
) -> jax.Array:
    """Augments a batch.

    Args:
      images_BxHxWx3: uint8.
      view_B: int32, the view that the batch order prescribes (used by ``paper``).
      key: the step's random key.
      augmentation: what to do.

    Returns:
      float32 in [0, 1], same shape.
    """
    _, light_key, stain_key = jax.random.split(key, 3)
    batch = images_BxHxWx3.shape[0]
    view_B = draw_views(view_B, key, augmentation)
    if augmentation.views != "none":
        images_BxHxWx3 = apply_views(images_BxHxWx3, view_B)
    x = images_BxHxWx3.astype(jnp.float32) / 255
    if augmentation.distorts:
        return _distort(x, key, augmentation)
    if augmentation.stain:
        # Absorbed light follows Beer-Lambert: stain strength scales -log(transmitted light).
        spread = augmentation.stain * jax.random.normal(stain_key, (batch, 1, 1, 3))
        x = jnp.maximum(x, 1 / 255) ** jnp.maximum(1 + spread, 0.1)
    if augmentation.light:
        half = augmentation.light
        x = x * jax.random.uniform(light_key, (batch, 1, 1, 1), minval=1 - half, maxval=1 + half)
    return jnp.clip(x, 0, 1) if augmentation.light or augmentation.stain else x


def _distort(x_BxHxWx3: jax.Array, key: jax.Array, augmentation: Augmentation) -> jax.Array:
    """All distortions; a strength that is 0 leaves its step out of the compiled program."""
    drawn = draw_strengths(key, x_BxHxWx3.shape[0], augmentation)
    side = max(x_BxHxWx3.shape[1:3])
    x = x_BxHxWx3.transpose(0, 3, 1, 2)
    # The matrix product first: XLA's CPU backend would compute the logarithms of `absorb` pixel by
    # pixel in one loop with the transposition, at six times the cost.
    if augmentation.colour:
        x = distortions.mix_channels(x, drawn["mixing"].reshape(-1, 3, 3))
    if augmentation.stain:
        x = distortions.absorb(x, drawn["density"])
    if augmentation.light or augmentation.gain or augmentation.shade:
        x = distortions.illuminate(x, drawn["gain"], drawn["slope"].reshape(-1, 3, 2))
    if augmentation.gamma:
        x = distortions.bend(x, drawn["gamma"])
    zoom, sharpen = drawn["zoom"][:, 0], drawn["sharpen"][:, 0]
    if augmentation.blur or augmentation.sharpen or augmentation.zoom[0] < 1:
        # Before the zoom, so that a smaller picture does not alias.
        aliasing = 0.25 * jnp.maximum(1 / zoom**2 - 1, 0)
        blurred = jnp.sqrt((side * drawn["blur"][:, 0]) ** 2 + aliasing)
        x = distortions.focus(x, jnp.where(sharpen > 0, side * _SHARPENED_SCALE, blurred), sharpen)
    if augmentation.zoom != (1.0, 1.0) or augmentation.rotation or augmentation.shift:
        x = distortions.warp(x, zoom, drawn["angle"][:, 0], side * drawn["shift"])
    x = jnp.clip(x, 0, 1)
    if augmentation.jpeg:
        x = distortions.quantise_blocks(x, drawn["jpeg"][:, 0])
    if augmentation.grey:
        x = distortions.to_grey(x, drawn["grey"][:, 0])
    return x.transpose(0, 2, 3, 1)


def draw_strengths(key: jax.Array, batch: int, augmentation: Augmentation) -> dict[str, jax.Array]:
    """The strengths of each distortion, float32 (B, n), that `augment` applies with this key.

    ``zoom`` and ``gain`` are factors, ``density`` and ``gamma`` exponents, ``angle`` radians,
    ``shift`` and ``blur`` shares of the side, ``mixing`` the rows of a 3x3 matrix, ``slope`` three
    channels' change down and to the right; ``grey`` is 0 or 1.
    """
    _, light_key, stain_key = jax.random.split(key, 3)
    # 0, 1 and 2 would give the keys of the split.
    key = jax.random.fold_in(key, 3)
    keys = dict(zip(DISTORTIONS, jax.random.split(key, len(DISTORTIONS)), strict=True))

    def even(name: str, count: int, key: jax.Array | None = None) -> jax.Array:
        """Evenly between minus and plus the setting."""
        largest = getattr(augmentation, name)
        key = keys[name] if key is None else key
        return largest * jax.random.uniform(key, (batch, count), minval=-1, maxval=1)

    smallest, largest = np.log(augmentation.zoom)
    mixing = even("colour", 9).reshape(batch, 3, 3)
    own = jnp.eye(3)[None]
    mixing = mixing * (1 - own)
    mixing = mixing + own * (1 - mixing.sum(axis=2, keepdims=True))
    gamma = even("gamma", 4)
    # One draw decides between blurred and sharpened.
    focus = jax.random.uniform(keys["blur"], (batch, 1), minval=-1, maxval=1)
    blurs, sharpens = (jnp.abs(focus), jnp.abs(focus))
    if augmentation.blur and augmentation.sharpen:
        blurs, sharpens = jnp.maximum(focus, 0), jnp.maximum(-focus, 0)
    spread = augmentation.stain * jax.random.normal(stain_key, (batch, 3))
    drawn = {
        "density": jnp.maximum(1 + spread, 0.1),
        "mixing": mixing.reshape(batch, 9),
        "gain": (1 + even("light", 1, light_key)) * (1 + even("gain", 3)),
        "slope": even("shade", 6),
        "gamma": jnp.exp((gamma[:, :1] + gamma[:, 1:]) / 2),
        "blur": augmentation.blur * blurs,
        "sharpen": augmentation.sharpen * sharpens,
        "zoom": jnp.exp(
            jax.random.uniform(keys["zoom"], (batch, 1), minval=smallest, maxval=largest)
        ),
        "angle": jnp.deg2rad(even("rotation", 1)),
        "shift": even("shift", 2),
        "jpeg": jnp.maximum(even("jpeg", 1), 0),
        "grey": jax.random.bernoulli(keys["grey"], augmentation.grey, (batch, 1)).astype(
            jnp.float32
        ),
    }
    return _computed_once(drawn)


def _computed_once(drawn: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The same values (B, n), which XLA's CPU backend does not compute again for every pixel.

    It fuses what is drawn into the loops over pixels, and drops optimization barriers before it
    does; a matrix product is where its fusions end. Without this the step would take several times
    as long as all distortions.
    """
    table = jnp.concatenate(list(drawn.values()), axis=1)
    table = jnp.matmul(table, jnp.eye(table.shape[1]), precision="highest")
    ends = np.cumsum([value.shape[1] for value in drawn.values()])[:-1]
    return dict(zip(drawn, jnp.split(table, ends, axis=1), strict=True))


def standardize(
    images: jax.Array,
    mean: tuple[float, ...] | jax.Array,
    std: tuple[float, ...] | jax.Array,
) -> jax.Array:
    """``(x - mean) / std`` of float32 images (..., 3) in [0, 1]; both are of a channel, (3,)."""
    ones = (1,) * (images.ndim - 1)
    mean_3, std_3 = (jnp.asarray(v, jnp.float32).reshape(*ones, 3) for v in (mean, std))
    return (images - mean_3) / std_3


def _fit(x: jax.Array, height: int, width: int) -> jax.Array:
    """Cuts or edge-pads axes 1 and 2, evenly on both sides, to the given size."""
    for axis, target in ((1, height), (2, width)):
        excess = x.shape[axis] - target
        if excess > 0:
            x = jax.lax.slice_in_dim(x, excess // 2, excess // 2 + target, axis=axis)
        elif excess < 0:
            pads = [(0, 0)] * x.ndim
            pads[axis] = (-excess // 2, -excess - -excess // 2)
            x = jnp.pad(x, pads, mode="edge")
    return x
