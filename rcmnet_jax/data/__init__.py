"""Data: where images come from, their audit, TFDS records, splits, pixels and batches.

Importing this package registers its data sets with TFDS, see `rcmnet_jax.data.builders`; without
TFDS everything but building works. The names below are imported when they are first used. jax is
only needed by `rcmnet_jax.data.augment`.
"""

import contextlib
import importlib
from typing import Any

_EXPORTS = {
    "Audit": "audit",
    "CellDataset": "dataset",
    "DATASET_NAMES": "dataset",
    "Preprocess": "preprocess",
    "Split": "splits",
    "audit_source": "audit",
    "audit_thoroughly": "audit",
    "channel_statistics": "statistics",
    "decode_image": "preprocess",
    "load_pixels": "cache",
    "make_folds": "splits",
    "make_leave_one_group_out": "splits",
    "make_split": "splits",
    "open_source": "sources",
    "prepare_dataset": "dataset",
    "read_split_csv": "splits",
    "write_split_csv": "splits",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])


# A bundle predicts where TFDS is not installed.
with contextlib.suppress(ImportError):
    importlib.import_module(f"{__name__}.builders")
