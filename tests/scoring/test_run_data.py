"""A trained network with its data: the parts of its split, and images that are not its own."""

import dataclasses
import shutil

import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_model
from rcmnet_jax.errors import DataError
from rcmnet_jax.scoring import run_data
from rcmnet_jax.scoring.run_data import open_run_data
from rcmnet_jax.scoring.score import score_images, score_part


def test_the_parts_are_those_of_training(trained):
    data = open_run_data(load_model(trained))
    assert {part: len(data.rows(part)) for part in ("train", "val", "test")} == {
        "train": 45,
        "val": 3,
        "test": 12,
    }
    files = data.dataset.records.file[data.rows("test")]
    names = [data.dataset.class_names[label] for label in data.labels("test")]
    assert [str(file).split("/")[0] for file in files] == names
    assert data.groups("test") is None
    assert data.pixels.shape == (60, 32, 32, 3)


def test_images_are_decoded_on_first_use_only(trained, monkeypatch):
    calls = []

    def decode(*args, **options):
        calls.append(args)
        return np.zeros((60, 32, 32, 3), np.uint8)

    monkeypatch.setattr(run_data, "load_pixels", decode)
    data = open_run_data(load_model(trained))
    assert not calls
    assert data.pixels is data.pixels
    assert len(calls) == 1


def test_images_that_moved_name_both_ways_out(trained, tmp_path):
    network = load_model(trained)
    config = {**network.meta["config"]}
    config["data"] = {**config["data"], "source": str(tmp_path / "gone")}
    moved = dataclasses.replace(network, meta={**network.meta, "config": config})
    with pytest.raises(DataError, match=r"gone does not exist.*--source.*evaluate --data"):
        open_run_data(moved)
    # A wrong --source is a mistake of its own.
    with pytest.raises(DataError, match="elsewhere does not exist") as raised:
        open_run_data(moved, source=str(tmp_path / "elsewhere"))
    assert "--data" not in str(raised.value)


def test_a_part_has_the_logits_of_each_image_alone(trained):
    data = open_run_data(load_model(trained))
    scored = score_part(data, "test", batch_size=5)
    network = data.network
    x = data.pixels[scored.rows[:1]].astype(np.float32) / 255
    x = (x - np.asarray(network.mean, np.float32)) / np.asarray(network.std, np.float32)
    alone = network.model.apply(network.variables, x, train=False)
    np.testing.assert_allclose(scored.logits[:1], alone, rtol=1e-3, atol=1e-3)
    assert scored.logits.shape == (12, 3)
    assert scored.labels.tolist() == data.labels("test").tolist()


def test_images_of_one_class_are_scored(trained, write_cell_folder, tmp_path):
    other = write_cell_folder(tmp_path / "cells", per_class=4, size=40, seed=3)
    for name in ("blue", "pale"):
        shutil.rmtree(other / name)
    network = load_model(trained)
    scored = score_images(network, str(other))
    assert scored.labels.tolist() == [network.class_names.index("pink")] * 4
    evaluation = scored.write(tmp_path / "out", network.class_names)
    assert evaluation.macro_auc.value is None
    assert evaluation.balanced_accuracy.value == evaluation.accuracy.value
    assert "All images are pink" in evaluation.table()
