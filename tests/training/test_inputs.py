"""From the config group ``data`` to images."""

import pytest

from configs.base import base_config
from rcmnet_jax.errors import ConfigError
from rcmnet_jax.training.inputs import open_dataset


def _data(tmp_path, **synthetic):
    data = base_config().data
    data.name, data.data_dir = "synthetic_smear", str(tmp_path)
    data.synthetic.update({"kind": "cart", "per_class": 2, **synthetic})
    return data


def test_synthetic_cells_are_drawn_once_and_opened_like_any_folder(tmp_path):
    first = open_dataset(_data(tmp_path), progress=False)
    assert first.synthetic
    assert first.class_names == ("cart", "other")
    assert all("synthetic" in file for file in first.records.file)
    # Older checkpoints of synthetic runs hold this hash.
    assert first.data_sha256 == "31939e403e764ec6e147e91fb1dc5446e7e482cd2e871c893807d63cad9f38c4"
    again = open_dataset(_data(tmp_path), progress=False)
    assert again.directory == first.directory
    other = open_dataset(_data(tmp_path, seed=1), progress=False)
    assert other.data_sha256 != first.data_sha256


def test_synthetic_cells_take_no_source_and_no_unknown_kind(tmp_path):
    with pytest.raises(ConfigError, match="kind of synthetic images 'mouse'"):
        open_dataset(_data(tmp_path, kind="mouse"), progress=False)
    data = _data(tmp_path)
    data.source = "cells"
    with pytest.raises(ConfigError, match=r"is drawn: unset data\.source"):
        open_dataset(data, progress=False)
