"""Settings of the augmentation: what each key means, its range, and the named presets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

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
# Value of data.augment that leaves the choice to the keys beside it.
CUSTOM = "custom"


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation settings for training images; each image draws its own strengths.

    Attributes:
      views: ``none``; ``dihedral``, a random one of eight per image and step; ``paper``, every
        image six times an epoch, once in each of the paper's views.
      light: half-width of the random brightness factor, 0 for none (0.1: between 0.9 and 1.1).
      stain: standard deviation of the random factor on each channel's optical density (0: none).
      zoom: smallest and largest size of a cell over its own, evenly drawn in the logarithm.
      rotation: largest turn either way, in degrees.
      shift: largest move along each axis, as a share of the side.
      blur: largest standard deviation of the blur, as a share of the side, before the zoom. An
        image is blurred or sharpened, with equal chances where both are asked for.
      sharpen: largest weight of the difference to the blurred image that is added.
      colour: largest weight that a channel gets from another; the weights of a channel sum to 1,
        so grey stays grey.
      gain: half-width of the random factor on each channel, on top of ``light``.
      shade: largest change of that factor from the centre to an edge, as a share.
      gamma: each channel's mid-grey goes to ``0.5 ** g`` with g between ``exp(-gamma)`` and
        ``exp(gamma)``; half of the exponent is common to the channels.
      jpeg: coarsest rounding of the cosine coefficients of 8x8 blocks, 1 for about that of JPEG at
        quality 50. Half of the images get none.
      grey: share of images that lose their colour.
    """

    views: str = "dihedral"
    light: float = 0.0
    stain: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    shift: float = 0.0
    blur: float = 0.0
    sharpen: float = 0.0
    colour: float = 0.0
    gain: float = 0.0
    shade: float = 0.0
    gamma: float = 0.0
    jpeg: float = 0.0
    grey: float = 0.0

    def __post_init__(self):
        if self.views not in VIEW_MODES:
            raise ConfigError(f"data.views {self.views!r} is not one of {', '.join(VIEW_MODES)}")
        if not (0 <= self.light < 1 and 0 <= self.stain < 1):
            raise ConfigError(
                f"data.light and data.stain are fractions in [0, 1), got {self.light}, {self.stain}"
            )
        # From a config it may be a list, which is not hashable.
        object.__setattr__(self, "zoom", tuple(self.zoom))
        if len(self.zoom) != 2 or not 0.1 <= self.zoom[0] <= self.zoom[1] <= 10:
            raise ConfigError(
                f"data.zoom is a smallest and a largest factor between 0.1 and 10, got {self.zoom}:"
                " write it as --config.data.zoom=0.8,1.2"
            )
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not 0 <= value <= largest:
                raise ConfigError(f"data.{name} must lie between 0 and {largest}, got {value}")

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
        return bool(self.light or self.stain or self.distorts)

    @property
    def distorts(self) -> bool:
        """Whether images are distorted in more than light and stain."""
        return any(getattr(self, name) != DEFAULTS[name] for name in DISTORTIONS)

    def require_shape(self, height: int, width: int) -> None:
        """Raises `ConfigError` where quarter turns would cut off more than a thin border."""
        if self.views != "none" and max(height, width) > MAX_ASPECT * min(height, width):
            raise ConfigError(
                f"data.views={self.views} turns images by 90 degrees, which {height}x{width} pixels"
                " do not allow: use nearly square images, or data.views=none"
            )


DEFAULTS = {field.name: field.default for field in dataclasses.fields(Augmentation)}
DISTORTIONS = tuple(name for name in DEFAULTS if name not in ("views", "light", "stain"))
_LARGEST = {
    "rotation": 180.0,
    "shift": 0.5,
    "blur": 0.1,
    "sharpen": 5.0,
    "colour": 1.0,
    "gain": 0.9,
    "shade": 0.45,
    "gamma": 2.0,
    "jpeg": 10.0,
    "grey": 1.0,
}
# How the ranges were found is in docs/decisions/0072.
PRESETS = {
    "none": Augmentation("none"),
    "paper": Augmentation("paper"),
    "mild": Augmentation(
        light=0.1,
        stain=0.1,
        zoom=(0.85, 1.2),
        rotation=10.0,
        shift=0.03,
        blur=0.008,
        sharpen=0.3,
        colour=0.05,
        gain=0.05,
        shade=0.05,
        gamma=0.15,
        jpeg=0.3,
    ),
    "strong": Augmentation(
        light=0.3,
        stain=0.2,
        zoom=(0.5, 1.8),
        rotation=20.0,
        shift=0.08,
        blur=0.02,
        sharpen=1.0,
        colour=0.2,
        gain=0.2,
        shade=0.15,
        gamma=0.6,
        jpeg=1.0,
        grey=0.1,
    ),
}


def preset(name: str) -> Augmentation:
    """The augmentation of that name.

    Raises:
      ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"augmentation {name!r} is not one of {', '.join(PRESETS)}")
    return PRESETS[name]


def augmentation_of(data: Mapping[str, Any]) -> Augmentation:
    """The augmentation of a config's ``data`` group: a preset, or what its keys say.

    Raises:
      ConfigError: an unknown preset, a value out of range, or a key beside a preset that would
        have no effect.
    """
    name = data["augment"]
    if name == CUSTOM:
        return Augmentation(**{key: data[key] for key in DEFAULTS})
    if name not in PRESETS:
        raise ConfigError(f"data.augment {name!r} is not one of {', '.join((CUSTOM, *PRESETS))}")
    # Experiment files set views, light and stain, so only the other keys are a user's mistake.
    for key in DISTORTIONS:
        value = tuple(data[key]) if key == "zoom" else data[key]
        if value != DEFAULTS[key]:
            raise ConfigError(
                f"data.{key}={data[key]} has no effect with data.augment={name}: leave one out"
                f" ({CUSTOM} leaves everything to the keys)"
            )
    return PRESETS[name]
