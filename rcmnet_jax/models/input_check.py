"""What every network requires of its input, told in the same words."""

import jax

from rcmnet_jax.errors import UserError


def require_images(x_BxHxWx3: jax.Array, *, smallest: int) -> None:
    """Raises `UserError` unless the shape is (B, H, W, 3) with both sides at least ``smallest``."""
    if x_BxHxWx3.ndim != 4 or x_BxHxWx3.shape[-1] != 3:
        raise UserError(
            f"images must be shaped (B, H, W, 3), channels last; got {tuple(x_BxHxWx3.shape)}"
        )
    height, width = x_BxHxWx3.shape[1:3]
    if min(height, width) < smallest:
        raise UserError(
            f"images of {height}x{width} pixels are too small for this network: it needs at least"
            f" {smallest} a side; set a larger data.height and data.width"
        )
