"""Data: where images come from, their audit, TFDS records, splits, pixels and batches.

The names below are imported when they are first used, so that `rcmnet_jax.data.splits` and its
like stay free of tensorflow_datasets and jax.
"""

import importlib
from typing import Any

_EXPORTS = {
    "Audit": "audit",
    "CellDataset": "dataset",
    "DATASET_NAMES": "dataset",
    "Preprocess": "preprocess",
    "Split": "splits",
    "SyntheticOptions": "dataset",
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
