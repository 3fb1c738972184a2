"""From a config to a run, and what is refused on the way."""

import jax
import numpy as np
import pytest

from rcmnet_jax.errors import ConfigError, DataError, UserError
from rcmnet_jax.training.experiment import build_experiment
from tests.training.runs import config_of


@pytest.fixture(scope="module")
def experiment(cells):
    return build_experiment(config_of(cells, **{"optim.class_weights": "balanced"}))


def test_numbers_of_steps_and_images_add_up(experiment):
    train = len(experiment.split.indices("train"))
    assert experiment.order.steps_per_epoch == train // 8 == 5
    assert experiment.total_steps == 10
    assert experiment.input_shape == (1, 32, 32, 3)


def test_statistics_are_those_of_the_train_split(experiment):
    pixels = experiment.pixels[experiment.split.indices("train")].reshape(-1, 3) / 255
    np.testing.assert_allclose(experiment.mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(experiment.std, pixels.std(0), rtol=1e-4)


def test_balanced_class_weights_give_every_class_the_same_total(experiment):
    counts = np.bincount(experiment.order.labels)
    totals = counts * np.asarray(experiment.class_weights)
    np.testing.assert_allclose(totals, totals[0])
    np.testing.assert_allclose(totals.sum(), counts.sum())


def test_the_record_of_a_run_names_config_classes_preprocessing_data_and_split(experiment):
    record = experiment.describe()
    assert record["class_names"] == ["blue", "pale", "pink"]
    assert record["config"]["optim"]["class_weights"] == "balanced"
    assert record["split"]["sha256"] == experiment.split.sha256
    assert len(record["data"]["sha256"]) == 64
    assert record["data"]["synthetic"] is False


@pytest.mark.two_devices
def test_all_devices_take_part(experiment):
    assert experiment.mesh.size == jax.device_count() == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model.name": "resnet50"}, "resnet50"),
        ({"model.norm": "layer"}, "model.norm"),
        ({"model.dropout": 1.0}, "model.dropout"),
        ({"seed": -1}, "seed"),
        ({"data.cache": "disk"}, "data.cache"),
        ({"data.views": "mirror"}, "data.views"),
        ({"data.sampling": "random"}, "data.sampling"),
        ({"data.height": 0}, "height"),
        ({"data.height": 96}, "data.views=none"),
        ({"data.name": "imagenet"}, "imagenet"),
        ({"data.split.protocol": "loose"}, "loose"),
        ({"data.split.test_fraction": 1.5}, "test_fraction"),
        ({"data.split.group_by": "hospital"}, "hospital"),
        ({"optim.schedule": "linear"}, "optim.schedule"),
        ({"optim.warmup_epochs": 2.0}, "optim.warmup_epochs"),
        ({"optim.class_weights": "inverse"}, "optim.class_weights"),
        ({"optim.label_smoothing": 1.0}, "optim.label_smoothing"),
        ({"optim.accumulate": 3}, "optim.accumulate"),
        ({"optim.ema": 1.0}, "optim.ema"),
        ({"train.batch_size": 46}, "smaller train.batch_size"),
        ({"train.epochs": 0}, "train.epochs"),
        ({"train.require_gpu": True}, "train.require_gpu"),
        ({"checkpoint.keep": 0}, "checkpoint.keep"),
        ({"checkpoint.every_steps": -1}, "checkpoint.every_steps"),
        ({"log.every_steps": 0}, "log.every_steps"),
    ],
)
def test_values_that_cannot_be_are_refused_in_one_line(cells, changes, named):
    with pytest.raises(UserError, match=named) as caught:
        build_experiment(config_of(cells, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.two_devices
def test_a_batch_that_does_not_divide_over_the_devices_is_refused(cells):
    with pytest.raises(UserError, match="multiple of 2"):
        build_experiment(config_of(cells, **{"train.batch_size": 7}))


def test_a_group_that_not_every_image_has_is_refused(cells):
    with pytest.raises(DataError, match="group_by=image"):
        build_experiment(config_of(cells, **{"data.split.group_by": "patient"}))


def test_a_wrong_value_is_told_before_images_are_decoded(cells, tmp_path):
    config = config_of(cells, **{"data.data_dir": str(tmp_path), "train.batch_size": 1000})
    with pytest.raises(ConfigError, match="fewer than one batch"):
        build_experiment(config)
    assert not (tmp_path / "pixels").exists()


def test_a_channel_without_variation_is_not_divided_by_zero(tmp_path):
    from PIL import Image

    for name, value in (("dark", 50), ("light", 200)):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("RGB", (16, 16), (value + i, i, 7)).save(tmp_path / name / f"{i}.png")
    changes = {"data.height": 16, "data.width": 16}
    std = build_experiment(config_of(tmp_path, **changes)).std
    assert min(std) > 0
