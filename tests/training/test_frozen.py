"""The frozen-feature path trains the same classifier as the plain one, and starts by itself."""

import hashlib
import logging

import jax
import numpy as np
import pytest

from rcmnet_jax.hosts.stop import StopRequest
from rcmnet_jax.training.experiment import build_experiment
from rcmnet_jax.training.frozen import frozen_features
from rcmnet_jax.training.loop import Interrupted, train
from rcmnet_jax.training.resume import restore_or_init
from tests.training.runs import (
    config_of,
    last_digest,
    open_store,
    rows_of,
    saved_arrays,
)

LOSSES = ("train_loss", "val_loss", "gradient_norm")


def transfer_config(cells, source, **changes):
    """Classifier only, on six views, with everything on that could move what is frozen."""
    return config_of(
        cells,
        **{
            "init.checkpoint": str(source),
            "init.trainable": ("head/.*",),
            "init.batch_norm": "frozen",
            "data.views": "paper",
            "optim.weight_decay": 0.1,
            # Small enough to converge: a diverging run blows rounding up without bound.
            "optim.learning_rate": 0.002,
            "optim.ema": 0.9,
            **changes,
        },
    )


@pytest.fixture(scope="module", params=["paper", "dihedral"])
def both(request, cells, finished, tmp_path_factory):
    """The folders of one run on both paths."""
    source, _ = finished
    root = tmp_path_factory.mktemp("paths")
    for path in ("auto", "never"):
        changes = {"train.frozen_features": path, "data.views": request.param}
        train(transfer_config(cells, source, **changes), root / path)
    return root / "auto", root / "never", source


def test_losses_and_scores_are_the_same(both):
    fast, plain, _ = both
    rows = rows_of(fast), rows_of(plain)
    assert len(rows[0]) == len(rows[1]) > 4
    for first, second in zip(*rows, strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() & set(LOSSES):
            assert first[name] == pytest.approx(second[name], rel=1e-5, abs=1e-6)
        assert first.get("val_accuracy") == second.get("val_accuracy")


def test_the_classifier_is_the_same_and_all_else_is_the_source_bit_for_bit(both):
    fast, plain, source = both
    ours, theirs = (saved_arrays(run / "checkpoints" / "best") for run in (fast, plain))
    before = saved_arrays(source / "checkpoints" / "best")
    assert ours.keys() == theirs.keys() == before.keys()
    for path, array in ours.items():
        if "head" in path:
            np.testing.assert_allclose(array, theirs[path], rtol=1e-5, atol=1e-6)
            assert not np.array_equal(array, before[path])
        else:
            digests = {
                hashlib.sha256(arrays[path].tobytes()).hexdigest()
                for arrays in (ours, theirs, before)
            }
            assert len(digests) == 1, path


def test_features_are_of_every_view(cells, finished, tmp_path):
    experiment = build_experiment(transfer_config(cells, finished[0]))
    with open_store_of(tmp_path) as store:
        state, _ = restore_or_init(experiment, store, experiment.describe(), tmp_path)
    features = frozen_features(experiment, state.eval_variables)
    train_rows = experiment.split.indices("train")
    assert features.train.shape == (len(train_rows), 6, 1, 1, 64)
    # The fifth view turns the image upside down, which can be done beforehand.
    row = 3
    upside_down = np.asarray(experiment.pixels[train_rows[row : row + 1]])[:, ::-1]
    x = (upside_down / np.float32(255) - np.float32(experiment.mean)) / np.float32(experiment.std)
    f = experiment.model.apply(state.eval_variables, x, train=False, method="features")
    np.testing.assert_allclose(
        features.train[row, 4, 0, 0], np.asarray(f).mean((1, 2))[0], rtol=1e-4, atol=1e-5
    )


def open_store_of(directory):
    import contextlib

    from rcmnet_jax.checkpoints import CheckpointStore

    return contextlib.closing(CheckpointStore(directory / "last"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"init.trainable": ("head/.*", "stage4/.*")}, "the backbone trains"),
        ({"init.batch_norm": "train"}, "batch norm is not frozen"),
        ({"data.stain": 0.1}, "vary at random"),
        ({"train.frozen_features": "never"}, "never"),
    ],
)
def test_where_features_are_not_constant_the_plain_path_says_why(
    cells, finished, caplog, changes, reason
):
    caplog.set_level(logging.INFO)
    config = transfer_config(cells, finished[0], **changes)
    assert frozen_features(build_experiment(config), {}) is None
    assert reason in caplog.text


def test_it_says_that_it_applies(both, cells, finished, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    train(transfer_config(cells, finished[0], **{"train.epochs": 1}), tmp_path)
    assert "the backbone is frozen: features of 45 images in 6 views" in caplog.text


def test_stopped_and_resumed_it_ends_the_same(cells, finished, tmp_path, monkeypatch):
    config = transfer_config(cells, finished[0], **{"train.epochs": 3})
    train(config, tmp_path / "whole")
    monkeypatch.setattr("rcmnet_jax.training.loop.SECONDS_BETWEEN_SAVES", 0.0)
    look = StopRequest.look
    monkeypatch.setattr(StopRequest, "look", lambda self: (look(self), self.make()))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "parts")
    assert last_digest(tmp_path / "parts")[0] < last_digest(tmp_path / "whole")[0]
    monkeypatch.undo()
    train(config, tmp_path / "parts")
    assert last_digest(tmp_path / "parts") == last_digest(tmp_path / "whole")
    assert open_store(tmp_path / "parts" / "checkpoints" / "best").steps


def test_a_reestimated_run_has_the_statistics_of_its_images(cells, finished, tmp_path):
    source = finished[0]
    train(transfer_config(cells, source, **{"init.batch_norm": "reestimate"}), tmp_path)
    before = saved_arrays(source / "checkpoints" / "best")
    after = saved_arrays(tmp_path / "checkpoints" / "best")
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    statistics = {path for path in before if "batch_stats" in path}
    assert moved == statistics | {path for path in before if "head" in path}
    assert jax.tree.all(jax.tree.map(lambda a: bool(np.isfinite(a).all()), after))


def test_hidden_dense_layers_train_on_cached_maps_with_the_same_dropout(cells, tmp_path):
    """AlexNet's whole classifier on a frozen, random backbone: tune=mlp of configs/cart.py."""
    changes = {
        "data.height": 64,
        "data.width": 64,
        "data.views": "none",
        "model.hidden": 16,
        "init.trainable": ("head/.*", "fc1/.*", "fc2/.*"),
        "optim.learning_rate": 0.01,
    }
    for path in ("auto", "never"):
        config = config_of(cells, "model=alexnet,epochs=2", **changes)
        # What configs of the tests set for the ResNets only.
        with config.unlocked():
            del config.model["width"], config.model["stage_sizes"]
            config.train.frozen_features = path
        train(config, tmp_path / path)
    fast, plain = rows_of(tmp_path / "auto"), rows_of(tmp_path / "never")
    assert len(fast) == len(plain) > 4
    for first, second in zip(fast, plain, strict=True):
        for name in first.keys() & set(LOSSES):
            assert first[name] == pytest.approx(second[name], rel=1e-5, abs=1e-6)
