"""The config of a run as ``config.json``, and whether a run may go on with another one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from rcmnet_jax.errors import ConfigError, UserError

CONFIG_FILE = "config.json"
# Keys that affect neither the batches nor, beyond rounding, the arithmetic: they may differ on
# resume.
FREE_KEYS = (
    "data.source",
    "data.data_dir",
    "data.cache",
    "data.split.version",
    "train.require_gpu",
    "train.frozen_features",
    "eval.batch_size",
    "eval.test_at_end",
    "checkpoint.",
    "log.",
)
# Keys that older runs lack, with the value they ran with.
ADDED_KEYS: dict[str, Any] = {
    "data.augment": "custom",
    "data.bit_depth": 0,
    "data.blur": 0.0,
    "data.colour": 0.0,
    "data.gain": 0.0,
    "data.gamma": 0.0,
    "data.grey": 0.0,
    "data.jpeg": 0.0,
    "data.page": 0,
    "data.rotation": 0.0,
    "data.shade": 0.0,
    "data.sharpen": 0.0,
    "data.shift": 0.0,
    "data.zoom": [1.0, 1.0],
    "data.split.version": 1,
    "data.split.folds": 0,
    "data.split.leave_out": "",
    "data.split.fold": -1,
    "eval.views": "one",
    "eval.watch": "val",
    "init.unfreeze": [],
    "optim.lr_factors": [],
    "train.frozen_features": "auto",
    "train.repeats": 1,
}


def flatten_config(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """``{"optim.learning_rate": 0.05, ...}``, with the values' types."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= {f"{key}.{inner}": v for inner, v in flatten_config(value).items()}
        else:
            flat[key] = value
    return flat


def require_same_config(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks that a run already in the folder has the same config.

    Raises:
      ConfigError: a key that matters differs.
      UserError: the ``config.json`` there cannot be read.
    """
    path = workdir / CONFIG_FILE
    if path.exists():
        # By way of JSON on both sides, which turns tuples into lists.
        now = ml_collections.ConfigDict(json.loads(_to_json(config)))
        _require_same(_read_config(path), now, workdir)


def require_same_processes(config: ml_collections.ConfigDict) -> None:
    """Checks that all processes of the run were started with one config.

    Raises:
      ConfigError: one was not, in every process.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(_to_json(config).encode()).digest()
    all_digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [i for i, row in enumerate(all_digests) if not np.array_equal(row, all_digests[0])]
    if others:
        raise ConfigError(
            f"process {others[0]} was started with another config than process 0: give all"
            " processes the same --config and overrides"
        )


def with_added_keys(saved: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config of a run, as its checkpoint or folder has it, with the keys added since."""
    config = ml_collections.ConfigDict(saved)
    for key, value in ADDED_KEYS.items():
        *groups, name = key.split(".")
        place: Any = config
        for group in groups:
            place = place.get(group) if isinstance(place, ml_collections.ConfigDict) else None
        # A file that lacks a whole group is damaged; the comparison reports it as another config.
        if isinstance(place, ml_collections.ConfigDict) and name not in place:
            place[name] = value
    return config


def write_config(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Writes ``config.json``, which from then on binds the folder to this config."""
    path = workdir / CONFIG_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_to_json(config))
    temporary.replace(path)


def _to_json(config: ml_collections.ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=2) + "\n"


def _read_config(path: Path) -> ml_collections.ConfigDict:
    try:
        return with_added_keys(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): restore it, or choose another --workdir"
        ) from error


def _require_same(
    saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: Path
) -> None:
    before, now = flatten_config(saved), flatten_config(config)
    if before.get("init.checkpoint") and now.get("init.checkpoint"):
        # A run resumes from its own checkpoints, wherever its start weights are by now.
        now["init.checkpoint"] = before["init.checkpoint"]
    differing = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(FREE_KEYS)
    ]
    if differing:
        raise ConfigError(
            f"{workdir} holds a run with another config ({'; '.join(differing[:3])}"
            f"{'; ...' if len(differing) > 3 else ''}):"
            " use the same command to resume it, or another --workdir"
        )
