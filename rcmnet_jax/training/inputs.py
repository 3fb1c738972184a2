"""From the config group ``data`` to images and to who trains, validates and tests."""

import functools
from collections.abc import Callable
from pathlib import Path

import ml_collections
import numpy as np

from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.dataset import SYNTHETIC, CellDataset, prepare_dataset
from rcmnet_jax.data.on_demand import OnDemandPixels
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.data.splits import (
    Split,
    make_folds,
    make_leave_one_group_out,
    make_split,
    read_split_csv,
)
from rcmnet_jax.data.storage import resolve_data_dir
from rcmnet_jax.errors import ConfigError
from rcmnet_jax.synthetic import DRAWING_VERSION, write_synthetic_folder


def open_dataset(data: ml_collections.ConfigDict, *, progress: bool) -> CellDataset:
    """Builds or reuses the data set of a config group ``data``; synthetic cells are drawn first."""
    source = _draw_cells(data, progress=progress) if data.name == SYNTHETIC else data.source
    return prepare_dataset(data.name, source, data.data_dir or None, progress=progress)


def _draw_cells(data: ml_collections.ConfigDict, *, progress: bool) -> Path:
    """The folder of cells that ``data.synthetic`` describes, drawn on first use."""
    if data.source:
        raise ConfigError(f"{SYNTHETIC} is drawn: unset data.source, or use data.name=cell_folder")
    options = data.synthetic.to_dict()
    name = "-".join(["images", *map(str, options.values()), f"v{DRAWING_VERSION}"])
    folder = resolve_data_dir(data.data_dir or None) / SYNTHETIC / name
    return write_synthetic_folder(folder, **options, progress=progress)


def open_pixels(
    dataset: CellDataset, preprocess: Preprocess, data: ml_collections.ConfigDict, *, progress: bool
) -> np.ndarray | OnDemandPixels:
    """The decoded images of a data set, or, for ``data.cache=stream``, a stand-in that decodes."""
    if data.cache == "stream":
        return OnDemandPixels(dataset, preprocess)
    return load_pixels(dataset, preprocess, data_dir=data.data_dir or None, progress=progress)


def split_dataset(dataset: CellDataset, split: ml_collections.ConfigDict) -> Split:
    """The split that a config group ``data.split`` describes, or the CSV it names."""
    if split.csv:
        return read_split_csv(Path(split.csv), **dataset.split_columns)
    if split.folds or split.leave_out:
        folds = _folds(dataset, split)
        if not 0 <= split.fold < len(folds):
            raise ConfigError(
                f"data.split.fold={split.fold} is not one of {len(folds)} folds: count from 0"
            )
        return folds[split.fold]
    options = {key: split[key] for key in ("protocol", "seed", "test_fraction", "val_fraction")}
    if split.version > 1:
        return dataset.split(group_by=split.group_by, **options)
    groups, level = _groups(dataset, split)
    return make_split(**dataset.split_columns, groups=groups, level=level, **options)


def count_folds(config: ml_collections.ConfigDict) -> int:
    """How many folds a config's data set is cut into; 1 without folds, or with one chosen."""
    split = config.data.split
    if not (split.folds or split.leave_out) or split.fold >= 0:
        return 1
    return len(_folds(open_dataset(config.data, progress=config.log.progress), split))


def _folds(dataset: CellDataset, split: ml_collections.ConfigDict) -> list[Split]:
    """All folds of a data set, by number or by group."""
    if split.folds and split.leave_out:
        raise ConfigError("data.split.folds and data.split.leave_out exclude each other: unset one")
    if split.leave_out:
        groups, level = dataset.groups(split.leave_out)
        if groups is None:
            raise ConfigError("data.split.leave_out must be patient, slide, lab or fold")
        make: Callable[..., list[Split]] = make_leave_one_group_out
    else:
        groups, level = _groups(dataset, split)
        make = functools.partial(make_folds, folds=split.folds)
    return make(
        **dataset.split_columns,
        seed=split.seed,
        groups=groups,
        level=level,
        val_fraction=split.val_fraction,
    )


def _groups(
    dataset: CellDataset, split: ml_collections.ConfigDict
) -> tuple[np.ndarray | None, str]:
    """What a split keeps whole, and its name."""
    group_by = split.group_by
    if split.version == 1 and group_by == "auto":
        # Runs of version 1 were split by image as soon as one id was missing.
        complete = (name for name in ("patient", "slide") if np.all(_ids(dataset, name) != ""))
        group_by = next(complete, "image")
    return dataset.groups(group_by)


def _ids(dataset: CellDataset, level: str) -> np.ndarray:
    return getattr(dataset.records, level)
