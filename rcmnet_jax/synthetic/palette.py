"""Colours of a May-Grünwald-Giemsa stain as optical densities, and one slide's variation of them.

Everything is drawn as optical density (absorbance), because stained matter absorbs: overlapping red
cells darken each other, a stronger stain scales the density, and the lamp multiplies what is left.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# The lamp and background of the reference slides, RGB in [0, 255].
BACKGROUND_RGB = (255.0, 230.0, 204.0)
# The same glass under a daylight filter: a minority of slides.
DAYLIGHT_RGB = (236.0, 234.0, 247.0)

# Colour as seen on the reference background, RGB, and which dye gives it: azure (blue-purple,
# binds acids: nuclei, RNA) or eosin (orange-red, binds bases: haemoglobin, eosinophil granules).
_SEEN_RGB: dict[str, tuple[tuple[int, int, int], str]] = {
    "red_cell": ((212, 173, 172), "eosin"),
    "nucleus": ((62, 20, 116), "azure"),
    "nucleus_loose": ((100, 42, 136), "azure"),
    "nucleus_pyknotic": ((46, 12, 92), "azure"),
    "chromatin_gap": ((158, 112, 168), "azure"),
    "nucleolus": ((132, 102, 176), "azure"),
    "basophilic": ((120, 106, 160), "azure"),
    "deep_blue": ((76, 68, 156), "azure"),
    "sky_blue": ((172, 160, 194), "azure"),
    "grey_blue": ((162, 134, 168), "azure"),
    "grey_pink": ((188, 154, 168), "eosin"),
    "lilac": ((196, 156, 182), "azure"),
    "pale_pink": ((222, 182, 180), "eosin"),
    "eosin_base": ((208, 144, 148), "eosin"),
    "eosin_granule": ((178, 90, 112), "eosin"),
    "neutrophil_granule": ((148, 84, 148), "azure"),
    "azurophil_granule": ((122, 48, 140), "azure"),
    "basophil_base": ((150, 88, 152), "azure"),
    "basophil_granule": ((56, 12, 108), "azure"),
    "basophil_granule_red": ((124, 26, 110), "azure"),
    "platelet_base": ((178, 140, 180), "azure"),
    "platelet_granule": ((100, 38, 130), "azure"),
}


@dataclasses.dataclass(frozen=True)
class Stain:
    """One slide's lamp and dye strengths, drawn without looking at the class.

    Attributes:
        lamp: RGB in [0, 1], float32 (3,): the colour of empty glass.
        azure: gain on the density of the blue-purple dye, near 1.
        eosin: gain on the density of the orange-red dye, near 1.
        tint: gain per RGB channel on every density, float32 (3,), near 1.
    """

    lamp: np.ndarray
    azure: float
    eosin: float
    tint: np.ndarray

    def density(self, name: str) -> np.ndarray:
        """Optical density of a named colour on this slide, float32 (3, 1, 1)."""
        rgb, dye = _SEEN_RGB[name]
        reference = -np.log(np.asarray(rgb, np.float32) / np.asarray(BACKGROUND_RGB, np.float32))
        gain = self.azure if dye == "azure" else self.eosin
        return (reference * gain * self.tint).astype(np.float32)[:, None, None]

    def blend(self, first: str, second: str, share: float) -> np.ndarray:
        """Density between two named colours; `share` in [0, 1] is the part of the second."""
        return self.density(first) * (1.0 - share) + self.density(second) * share


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draws one slide: lamp, exposure, dye strengths and tint."""
    daylight = rng.uniform(0.4, 1.0) if rng.random() < 0.1 else rng.beta(1.0, 14.0)
    lamp = np.asarray(BACKGROUND_RGB) * (1.0 - daylight) + np.asarray(DAYLIGHT_RGB) * daylight
    lamp = lamp * rng.normal(1.0, 0.008, 3) * rng.uniform(0.95, 1.02)
    return Stain(
        lamp=(np.minimum(lamp, 255.0) / 255.0).astype(np.float32),
        azure=float(np.clip(rng.normal(1.0, 0.13), 0.65, 1.35)),
        eosin=float(np.clip(rng.normal(1.0, 0.17), 0.55, 1.5)),
        tint=np.clip(rng.normal(1.0, 0.03, 3), 0.9, 1.1).astype(np.float32),
    )
