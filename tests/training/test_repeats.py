"""Folds and seeds from one command: every image tested once, results pooled, nothing done twice."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.errors import ConfigError, DataError
from rcmnet_jax.evaluation import read_predictions
from rcmnet_jax.training.experiment import build_experiment
from rcmnet_jax.training.feed import Feed
from rcmnet_jax.training.loop import train
from rcmnet_jax.training.repeats import is_repeated, run_repeats
from rcmnet_jax.training.state import create_train_state
from rcmnet_jax.training.steps import compile_step
from tests.training.runs import config_of


@pytest.fixture(scope="module")
def folded(cells, tmp_path_factory):
    """Two seeds of three folds."""
    workdir = tmp_path_factory.mktemp("protocol") / "run"
    config = config_of(cells, "epochs=1", **{"data.split.folds": 3, "train.repeats": 2})
    assert is_repeated(config)
    return config, workdir, run_repeats(config, workdir)


def test_every_image_is_tested_once_by_a_network_that_did_not_see_it(folded, cells):
    _, workdir, _ = folded
    for seed in (0, 1):
        pooled = read_predictions(workdir / f"seed{seed}" / "test_predictions.csv")
        assert sorted(pooled.files) == sorted(
            str(path.relative_to(cells)) for path in cells.rglob("*.png")
        )
        for fold in range(3):
            folder = workdir / f"seed{seed}" / f"fold{fold}"
            part = read_predictions(folder / "test_predictions.csv")
            split = (folder / "split.csv").read_text()
            assert all(f"{file},{file.split('/')[0]},test" in split for file in part.files)


def test_pooled_numbers_are_the_sums_of_the_folds(folded):
    _, workdir, summary = folded
    counts = []
    for seed in (0, 1):
        pooled = json.loads((workdir / f"seed{seed}" / "test_metrics.json").read_text())
        folds = [
            json.loads((workdir / f"seed{seed}/fold{fold}/test_metrics.json").read_text())
            for fold in range(3)
        ]
        assert pooled["accuracy"]["n"] == 60 == sum(f["accuracy"]["n"] for f in folds)
        assert pooled["accuracy"]["k"] == sum(f["accuracy"]["k"] for f in folds)
        assert pooled["meta"]["split"]["protocol"] == "3 folds, pooled"
        counts.append(pooled["accuracy"]["k"])
    assert [summary["seeds"][s]["accuracy"]["k"] for s in ("0", "1")] == counts
    assert summary["accuracy"]["mean"] == pytest.approx(sum(counts) / 120)
    assert len(summary["balanced_accuracy_by_run"]) == 6
    assert json.loads((workdir / "summary.json").read_text()) == summary


def test_a_second_call_trains_nothing(folded, monkeypatch):
    config, workdir, summary = folded
    monkeypatch.setattr(
        "rcmnet_jax.training.repeats.train", lambda *_: pytest.fail("trained again")
    )
    assert run_repeats(config, workdir) == summary


def test_what_is_missing_is_trained(folded, tmp_path):
    config, workdir, summary = folded
    called = []

    def count(run_config, folder):
        called.append(folder.relative_to(workdir))
        return train(run_config, folder)

    (workdir / "seed1/fold2/test_metrics.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rcmnet_jax.training.repeats.train", count)
        assert run_repeats(config, workdir) == summary
    assert [str(path) for path in called] == ["seed1/fold2"]


def test_one_fold_alone_is_a_run_like_any_other(cells, tmp_path):
    config = config_of(cells, "epochs=1", **{"data.split.folds": 3, "data.split.fold": 1})
    assert not is_repeated(config)
    assert train(config, tmp_path / "run")["test"]["n"] == 20


def test_folds_and_other_rates_share_one_program(cells, tmp_path):
    """Lowered, the steps are the same letter by letter, so that only the first is compiled."""

    def step_of(name, epochs=1, **changes):
        experiment = build_experiment(config_of(cells, f"epochs={epochs}", **changes))
        state = create_train_state(
            jax.random.key(0), experiment.model, experiment.tx, experiment.input_shape
        )
        feed = Feed(experiment)
        step = compile_step(experiment.step_config, experiment.mesh, on_device=True)
        (_, arguments), *_ = feed.dispatches(0, 1)
        rate = np.asarray(experiment.schedule(0), np.float32)
        given = experiment.step_inputs.replace(learning_rate=np.full(feed.chunk, rate))
        text = step.lower(state, *arguments, jax.random.key(0), given).as_text()
        return text, given, len(experiment.order.labels)

    first, given, images = step_of("first", **{"data.split.folds": 7, "data.split.fold": 0})
    last = {"data.split.folds": 7, "data.split.fold": 6}
    fold, given_fold, images_fold = step_of("fold", **last)
    assert (given.mean != given_fold.mean).all()
    assert images != images_fold
    assert first == fold
    rates = {"optim.learning_rate": 0.3, "optim.schedule": "constant", "optim.warmup_epochs": 0.0}
    other, given_other, _ = step_of("other", epochs=3, **last, **rates)
    assert given_other.learning_rate == np.float32(0.3) != given.learning_rate
    assert first == other


def test_one_patient_at_a_time(tmp_path, write_cell_folder):
    source = write_cell_folder(tmp_path / "cells", per_class=6)
    lines = ["file,label,patient"]
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        lines.append(f"{path.relative_to(source)},{path.parent.name},p{number % 3}")
    manifest = source / "cells.csv"
    manifest.write_text("\n".join(lines) + "\n")
    changes = {"data.split.leave_out": "patient", "data.split.val_fraction": 0.0}
    summary = run_repeats(config_of(manifest, "epochs=1", **changes), tmp_path / "run")
    assert summary["folds"] == 3
    pooled = json.loads((tmp_path / "run/seed0/test_metrics.json").read_text())
    assert pooled["accuracy"]["n"] == 18
    # Patients are resampled whole.
    assert pooled["groups"] == 3
    assert "no patient lies in training and test alike" in pooled["split_note"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data.split.folds": 3, "data.split.leave_out": "slide"}, ConfigError, "exclude"),
        ({"data.split.folds": 1}, DataError, "2 or more"),
        ({"data.split.folds": 21}, DataError, "20 usable images for 21 folds"),
        ({"data.split.leave_out": "patient"}, DataError, "fill in the manifest's column"),
        ({"train.repeats": 0, "data.split.folds": 2}, ConfigError, "at least 1"),
        ({"data.split.folds": 3, "data.split.fold": 3}, ConfigError, "one of 3 folds"),
    ],
)
def test_mistakes_are_told_before_anything_trains(cells, tmp_path, changes, error, message):
    config = config_of(cells, **changes)
    start = run_repeats if is_repeated(config) else train
    with pytest.raises(error, match=message):
        start(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_target_of_one_class_or_three_images_is_told(tmp_path, write_cell_folder):
    source = write_cell_folder(tmp_path / "cells", per_class=1)
    with pytest.raises(DataError, match="usable image"):
        train(config_of(source), tmp_path / "run")
    one = tmp_path / "one" / "band"
    one.mkdir(parents=True)
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(one / "a.png")
    with pytest.raises(DataError, match="class"):
        train(config_of(one.parent), tmp_path / "other")
