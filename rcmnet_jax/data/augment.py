"""Augmentation on device, inside the compiled training step. Never on validation or test.

Three means, all optional: the paper's six views as an offline-equivalent expansion of the train
split (Table 3), a random element of the dihedral group per image and step, and a mild jitter of
stain and light. Views are exact pixel moves on uint8; jitter works on float32.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rcmnet_jax.errors import ConfigError

# (transpose, flip rows, flip columns) of each element of the dihedral group. The first six are
# the paper's x6: the image, its rotations by 90, 180 and 270 degrees, and its two flips.
DIHEDRAL = (
    (False, False, False),
    (True, True, False),
    (False, True, True),
    (True, False, True),
    (False, True, False),
    (False, False, True),
    (True, False, False),
    (True, True, True),
)
PAPER_VIEWS = 6
VIEW_MODES = ("none", "dihedral", "paper")
# Sides may differ by this fraction for a quarter turn to make sense (PBC: 363 against 360).
MAX_ASPECT = 1.1


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training images.

    Attributes:
      views: ``none``; ``dihedral``, a random one of eight per image and step; ``paper``, every
        image six times an epoch, once in each of the paper's views.
      light: half-width of the random brightness factor, 0 for none (0.1: between 0.9 and 1.1).
      stain: standard deviation of the random factor on each channel's optical density (0: none).
    """

    views: str = "dihedral"
    light: float = 0.0
    stain: float = 0.0

    def __post_init__(self):
        if self.views not in VIEW_MODES:
            raise ConfigError(f"data.views {self.views!r} is not one of {', '.join(VIEW_MODES)}")
        if not (0 <= self.light < 1 and 0 <= self.stain < 1):
            raise ConfigError(
                f"data.light and data.stain are fractions in [0, 1), got {self.light}, {self.stain}"
            )

    @property
    def expansion(self) -> int:
        """How many times an epoch shows each image."""
        return PAPER_VIEWS if self.views == "paper" else 1

    @property
    def distinct_views(self) -> int:
        """How many views of an image there are, its first rows of `DIHEDRAL`."""
        return len(DIHEDRAL) if self.views == "dihedral" else self.expansion

    @property
    def jitters(self) -> bool:
        """Whether a view differs from one time to the next."""
        return bool(self.light or self.stain)

    def require_shape(self, height: int, width: int) -> None:
        """Raises `ConfigError` where quarter turns would cut off more than a thin border."""
        if self.views != "none" and max(height, width) > MAX_ASPECT * min(height, width):
            raise ConfigError(
                f"data.views={self.views} turns images by 90 degrees, which {height}x{width} pixels"
                " do not allow: use nearly square images, or data.views=none"
            )


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
    if augmentation.stain:
        # Absorbed light follows Beer-Lambert: stain strength scales -log(transmitted light).
        spread = augmentation.stain * jax.random.normal(stain_key, (batch, 1, 1, 3))
        x = jnp.maximum(x, 1 / 255) ** jnp.maximum(1 + spread, 0.1)
    if augmentation.light:
        half = augmentation.light
        x = x * jax.random.uniform(light_key, (batch, 1, 1, 1), minval=1 - half, maxval=1 + half)
    return jnp.clip(x, 0, 1) if augmentation.light or augmentation.stain else x


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
