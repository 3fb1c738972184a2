"""What reads what users give, each with inputs that are nearly right.

A target is a function of a folder and an input, and a strategy for the inputs. A new reader of
files (a bundle, say) is added to `TARGETS`, and is then tried like all the others.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rcmnet_jax.cli.config_flags import parse_flags
from rcmnet_jax.data.audit import read_audit
from rcmnet_jax.data.class_map import read_class_map
from rcmnet_jax.data.preprocess import Preprocess, decode_image
from rcmnet_jax.data.sources import open_source
from rcmnet_jax.data.splits import read_split_csv
from rcmnet_jax.errors import BadImageError
from rcmnet_jax.evaluation.predictions import read_predictions
from rcmnet_jax.training.config import check_values
from rcmnet_jax.training.log import read_rows
from rcmnet_jax.workdir.config_file import require_same_config
from tests.fuzz import inputs, spreadsheets, tiffs, trees

CLASSES = ("a", "b")
CONFIG = Path(__file__).parents[1] / "training" / "tiny_config.py"


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that reads an input.

    Attributes:
        read: called with a folder of its own and the input.
        inputs: what to give it.
        share: of all inputs, compared with the others; slow ones get less.
      also: folders it may read besides its own.
    """

    read: Callable[[Path, Any], Any]
    inputs: st.SearchStrategy[Any]
    share: float = 1.0
    also: tuple[Path, ...] = ()


def _image(folder: Path, data: bytes) -> None:
    pixels = decode_image(data, Preprocess(16, 16))
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8


def _with_images(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "1.png").write_bytes(inputs.IMAGES["PNG"])
        (folder / name / "2.png").write_bytes(inputs.IMAGES["BMP"])


def _manifest(folder: Path, data: bytes) -> None:
    _with_images(folder)
    (folder / "manifest.csv").write_bytes(data)
    source = open_source(folder / "manifest.csv")
    for file in source.files:
        source.read(file)


def _zip(folder: Path, data: bytes) -> None:
    (folder / "images.zip").write_bytes(data)
    source = open_source(folder / "images.zip", layout="zip")
    for file in source.files:
        try:
            decode_image(source.read(file))
        except BadImageError:
            continue


def _split(folder: Path, data: bytes) -> None:
    (folder / "split.csv").write_bytes(data)
    read_split_csv(
        folder / "split.csv",
        files=["a/1.png", "b/2.png"],
        labels=[0, 1],
        sha256=["0" * 64, "1" * 64],
        class_names=CLASSES,
    )


def _class_map(folder: Path, data: bytes) -> None:
    (folder / "map.csv").write_bytes(data)
    read_class_map(folder / "map.csv", CLASSES, CLASSES)


def _predictions(folder: Path, data: bytes) -> None:
    (folder / "p.csv").write_bytes(data)
    read_predictions(folder / "p.csv")


def _audit(folder: Path, data: bytes) -> None:
    (folder / "audit.json").write_bytes(data)
    read_audit(folder / "audit.json")


def _arguments(folder: Path, words: list[str]) -> None:
    config, *_ = parse_flags([f"--config={CONFIG}", f"--workdir={folder}", *words])
    check_values(config)


@functools.cache
def _config():
    return parse_flags([f"--config={CONFIG}", "--workdir=x"])[0]


def _saved_config(folder: Path, data: bytes) -> None:
    (folder / "config.json").write_bytes(data)
    require_same_config(_config(), folder)


def _log(folder: Path, data: bytes) -> None:
    (folder / "metrics.jsonl").write_bytes(data)
    read_rows(folder / "metrics.jsonl")


@st.composite
def _overrides(draw: st.DrawFn) -> list[str]:
    """Keys of the config, and some that are none, with values that fit and values that do not."""
    keys = st.sampled_from(
        ["seed", "data.height", "data.source", "data.views", "data.split.seed", "optim.schedule"]
    ) | st.text("abc.", max_size=8)
    numbers = ["0", "-1", "1e400", "nan", "None", "true", "(1,", "[]", "{}"]
    values = st.sampled_from(numbers) | st.text(max_size=8)
    return [f"--config.{draw(keys)}={draw(values)}" for _ in range(draw(st.integers(0, 3)))] + draw(
        st.lists(st.text(max_size=6).filter(lambda word: "\x00" not in word), max_size=1)
    )


_AUDIT = {
    "version": 1,
    "source": "s",
    "layout": "folder",
    "fingerprint": "f",
    "class_names": ["a", "b"],
    "rows": [{"file": "a/1.png", "label": "a", "status": "kept", "sha256": "0" * 64}],
    "findings": [{"kind": "size", "message": "m", "count": 1, "examples": ["x"]}],
    "notes": [],
}
_ROW = {"kind": "epoch", "step": 1, "epoch": 1.0, "train_loss": 0.5}
_PREDICTED = ["a/1.png", "0" * 64, "a", "a", "1", "0.75", "0.75", "0.25"]

TARGETS: dict[str, Target] = {
    "image": Target(_image, inputs.image_bytes(), 4),
    "manifest": Target(
        _manifest,
        inputs.table(["file", "label"], [["a/1.png", "a"], ["b/2.png", "b"], ["b/1.png", "b"]]),
    ),
    "folder": Target(trees.read_tree, trees.TREES, 2),
    "table": Target(spreadsheets.read_tables, spreadsheets.TABLES),
    "manifest forms": Target(spreadsheets.read_manifests, spreadsheets.MANIFESTS),
    "tiff": Target(lambda folder, tiff: tiffs.read_tiff(tiff), tiffs.TIFFS, 2),
    "zip": Target(_zip, inputs.zip_bytes()),
    "split": Target(
        _split,
        inputs.table(
            ["file", "label", "part", "reason", "group"],
            [["a/1.png", "a", "train", "", ""], ["b/2.png", "b", "test", "", ""]],
        ),
    ),
    "class map": Target(_class_map, inputs.table(["label", "class"], [["a", "a"], ["b", ""]])),
    "predictions": Target(
        _predictions,
        inputs.table(
            ["file", "sha256", "label", "predicted", "correct", "probability", "p_a", "p_b"],
            [_PREDICTED],
        ),
    ),
    "audit": Target(_audit, inputs.bent_json(_AUDIT)),
    # The config file is the user's own code, and is run; what stands behind it is not.
    "arguments": Target(
        _arguments, _overrides(), 0.3, (CONFIG.parent, CONFIG.parents[2] / "configs")
    ),
    "saved config": Target(
        _saved_config, st.deferred(lambda: inputs.bent_json(json.loads(_config().to_json())))
    ),
    "log": Target(_log, inputs.bent_json(_ROW)),
}
