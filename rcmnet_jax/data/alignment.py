"""Images of another laboratory made more like those at home, without labels.

Two differences are measured on whole sets and undone: the size of the cell in the frame, by
the area of the nuclei, and the colour of light and stain, by the channels' mean and spread.
Everything is estimated from all images together: an eosinophil is not made a neutrophil because it
is redder than the average.
"""

import dataclasses

import numpy as np
from PIL import Image

# Beyond this factor the estimate says that the sets do not hold the same kind of picture.
SCALE_BOUNDS = (0.4, 2.5)
# Brightest share of an image taken for its background.
_BACKGROUND = 0.2


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How to bring a set of images to the home set.

    Attributes:
        scale: factor on the size of the cell in the frame; 1 leaves the images alone.
        gain: factor on each channel, after scaling; offset: added then, in [0, 1].
    """

    scale: float = 1.0
    gain: tuple[float, ...] = (1.0, 1.0, 1.0)
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)

    def apply(self, pixels_NxHxWx3: np.ndarray) -> np.ndarray:
        """uint8 in, uint8 out, same shape."""
        scaled = rescale(pixels_NxHxWx3, self.scale)
        if self.gain == (1.0, 1.0, 1.0) and self.offset == (0.0, 0.0, 0.0):
            return scaled
        values = scaled * np.array(self.gain) + 255 * np.array(self.offset)
        return np.clip(np.round(values), 0, 255).astype(np.uint8)


def estimate_alignment(
    pixels_NxHxWx3: np.ndarray,
    home_MxHxWx3: np.ndarray,
    *,
    scale: bool = True,
    colour: bool = True,
) -> Alignment:
    """Measures what differs between a set and the home set.

    Args:
        pixels_NxHxWx3: uint8 images to be aligned; no labels are asked for.
        home_MxHxWx3: uint8 images that the network was trained on, or some of them.
        scale: match the size of the cells.
        colour: match mean and spread of the channels, after scaling.

    Returns:
        The alignment; the identity where nothing is asked for.
    """
    factor = 1.0
    if scale:
        ratio = nucleus_share(home_MxHxWx3) / max(nucleus_share(pixels_NxHxWx3), 1e-6)
        factor = float(np.clip(np.sqrt(ratio), *SCALE_BOUNDS))
    gain, offset = np.ones(3), np.zeros(3)
    if colour:
        scaled = rescale(pixels_NxHxWx3, factor)
        mean, spread = _moments(scaled)
        home_mean, home_spread = _moments(home_MxHxWx3)
        gain = home_spread / np.maximum(spread, 1 / 255)
        offset = home_mean - gain * mean
    return Alignment(factor, tuple(map(float, gain)), tuple(map(float, offset)))


def _moments(pixels_NxHxWx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over a whole set, in [0, 1]."""
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for start in range(0, len(pixels_NxHxWx3), 256):
        flat = pixels_NxHxWx3[start : start + 256].reshape(-1, 3) / 255.0
        sums += flat.sum(axis=0)
        squares += (flat**2).sum(axis=0)
        count += len(flat)
    mean = sums / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def nucleus_share(pixels_NxHxWx3: np.ndarray) -> float:
    """Median over the images of the share of the frame that nuclei fill.

    Nuclei take up all the red light that red cells and background let through: they are what lies
    below the threshold that divides the red channel of all images best (Otsu 1979), which depends
    on neither exposure nor stain as long as nuclei stay the darkest.
    """
    red = pixels_NxHxWx3[..., 0]
    threshold = otsu(np.bincount(red.ravel(), minlength=256))
    return float(np.median((red <= threshold).mean(axis=(1, 2))))


def otsu(histogram_256: np.ndarray) -> int:
    """The grey level that divides a histogram with the largest variance between its sides."""
    count = histogram_256.astype(np.float64)
    below = np.cumsum(count)
    above = below[-1] - below
    moment = np.cumsum(count * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment / below - (moment[-1] - moment) / above) ** 2 * below * above
    return int(np.nanargmax(np.where(np.isfinite(between), between, -1)))


def rescale(pixels_NxHxWx3: np.ndarray, factor: float) -> np.ndarray:
    """Cells larger or smaller in the same frame.

    Above 1 the middle is enlarged. Below 1 the image is shrunk and laid on its own background, the
    mean of its brightest pixels: mirroring would put a second nucleus at the border.
    """
    if abs(factor - 1) < 0.02:
        return pixels_NxHxWx3
    return np.stack([_rescale_one(pixels, factor) for pixels in pixels_NxHxWx3])


def _rescale_one(pixels: np.ndarray, factor: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    if factor > 1:
        inner = (width / factor, height / factor)
        left, top = (width - inner[0]) / 2, (height - inner[1]) / 2
        box = (left, top, left + inner[0], top + inner[1])
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    light = pixels.sum(axis=2)
    bright = pixels[light >= np.quantile(light, 1 - _BACKGROUND)]
    canvas = np.empty_like(pixels)
    canvas[:] = np.round(bright.mean(axis=0)).astype(np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    return canvas
