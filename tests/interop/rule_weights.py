"""Weights and inputs that follow from the rule in shared/parity/README.md, and where it lies."""

import json
import math
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

SEED = 20231
IMAGES, CBAM_INPUT, BOT_INPUT = 10000, 10001, 10002


def parity_folder() -> Path:
    """``parity`` in $RCMNET_SHARED, or in ``shared`` beside or inside the checkout."""
    root = Path(__file__).resolve().parents[2]
    places = [os.environ.get("RCMNET_SHARED"), root.parent / "shared", root / "shared"]
    folders = [Path(place) / "parity" for place in places if place]
    found = [folder for folder in folders if (folder / "state_dicts.json").exists()]
    if not found:
        pytest.skip(f"no parity figures in {', '.join(map(str, folders))}: set RCMNET_SHARED")
    return found[0]


@cache
def state_dict_shapes() -> dict[str, list]:
    return json.loads((parity_folder() / "state_dicts.json").read_text())


def expected(case: str) -> dict[str, np.ndarray]:
    with np.load(parity_folder() / f"{case}.npz") as arrays:
        return dict(arrays)


def rule_state_dict(case: str) -> dict[str, np.ndarray]:
    """The state dict of a case, in its order."""
    return {
        name: _entry(number, name, tuple(shape))
        for number, (name, shape) in enumerate(state_dict_shapes()[case])
    }


def rule_normal(number: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([SEED, number]).standard_normal(shape).astype(np.float32)


def rule_images(batch: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng([SEED, IMAGES])
    return rng.uniform(0, 1, (batch, height, width, 3)).astype(np.float32)


def _entry(number: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    r = rule_normal(number, shape)
    if name.endswith("running_var"):
        return np.exp(np.float32(0.1) * r)
    if name.endswith("running_mean"):
        return np.float32(0.1) * r
    if len(shape) >= 2 and "rel_" not in name:
        return r * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    if "rel_" in name:
        return r * np.float32(shape[-1] ** -0.5)
    if name.endswith("weight"):
        return 1 + np.float32(0.1) * r
    return np.float32(0.1) * r
