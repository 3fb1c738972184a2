"""From a config to everything a run consists of: data, split, network, optimizer, step."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from rcmnet_jax.data.augment_settings import augmentation_of
from rcmnet_jax.data.dataset import CellDataset
from rcmnet_jax.data.on_demand import OnDemandPixels
from rcmnet_jax.data.order import BatchOrder
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.data.splits import Split
from rcmnet_jax.data.statistics import channel_statistics
from rcmnet_jax.errors import ConfigError
from rcmnet_jax.hosts.mesh import make_mesh, require_divisible
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.interop.start_weights import open_weights
from rcmnet_jax.models import create_model
from rcmnet_jax.training.config import check_values
from rcmnet_jax.training.inputs import open_dataset, open_pixels, split_dataset
from rcmnet_jax.training.optimizer import make_optimizer, make_schedule
from rcmnet_jax.training.state import initializer
from rcmnet_jax.training.steps import StepConfig, StepInputs
from rcmnet_jax.transfer.freezing import (
    learning_rate_factors,
    trainable_paths,
    unfreezing_epochs,
)
from rcmnet_jax.types import PyTree

# One grey level: a channel without variation must not be divided by zero.
SMALLEST_STD = np.float32(1 / 255)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, ready to start.

    Attributes:
      config: locked.
      dataset: the built data set.
      split: which image is in which part.
      preprocess: bytes to pixels.
      pixels: (N, H, W, 3) uint8 of the whole set: memory-mapped, or decoded on demand.
      mean: per-channel mean to standardise with, in [0, 1].
      std: per-channel standard deviation.
      class_weights: factor on the loss of each class's examples, or None.
      order: of the training examples.
      model: the network.
      tx: the optimizer.
      schedule: learning rate by step.
      step_config: static settings of the training step.
      mesh: the devices.
      unfreezing: path -> number of epochs after which the parameter trains.
      source: the trained network that the weights come from; None where they are fresh, or the
        run has checkpoints of its own.
    """

    config: ml_collections.ConfigDict
    dataset: CellDataset
    split: Split
    preprocess: Preprocess
    pixels: np.ndarray | OnDemandPixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_weights: tuple[float, ...] | None
    order: BatchOrder
    model: nn.Module
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    step_config: StepConfig
    mesh: Mesh
    unfreezing: dict[str, int]
    source: TrainedNetwork | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.train.epochs * self.order.steps_per_epoch

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one image as the network sees it, with a batch axis."""
        return (1, self.preprocess.height, self.preprocess.width, 3)

    @property
    def step_inputs(self) -> StepInputs:
        """Arrays for every step: all but the learning rate."""
        given = {"mean": self.mean, "std": self.std, "class_weights": self.class_weights}
        arrays = {k: np.asarray(v, np.float32) for k, v in given.items() if v is not None}
        return StepInputs(**arrays)

    def step_config_at(self, epoch: int) -> StepConfig:
        """Settings of the step in an epoch, from 0: gradual unfreezing makes them differ."""
        waiting = tuple(sorted(path for path, start in self.unfreezing.items() if epoch < start))
        return dataclasses.replace(self.step_config, waiting=waiting)

    def describe(self) -> dict[str, Any]:
        """The run's record in its checkpoints, ready for JSON."""
        return {
            "config": self.config.to_dict(),
            "class_names": list(self.dataset.class_names),
            "preprocess": self.preprocess.to_dict(),
            "normalization": {"mean": list(self.mean), "std": list(self.std)},
            "data": {
                "name": self.dataset.name,
                "sha256": self.dataset.data_sha256,
                "synthetic": self.dataset.synthetic,
                "images": len(self.dataset),
            },
            "split": {
                "protocol": self.split.protocol,
                "level": self.split.level,
                "seed": self.split.seed,
                "sha256": self.split.sha256,
                "counts": self.split.counts(),
            },
        }


def build_experiment(
    config: ml_collections.ConfigDict, *, saved: Mapping[str, Any] | None = None
) -> Experiment:
    """Prepares data and network for a config.

    Args:
      config: as ``configs/*.py`` return it.
      saved: the record in the checkpoints of a run that goes on; it needs neither its source's
        weights nor the statistics of its images again.

    Raises:
      ConfigError: values that do not exist or contradict each other.
      DataError: images, manifest or split that cannot be used.
      CheckpointError: ``init.checkpoint`` cannot be opened.
    """
    check_values(config)
    progress = config.log.progress
    dataset = open_dataset(config.data, progress=progress)
    split = split_dataset(dataset, config.data.split)
    train_rows = split.indices("train")
    labels = np.asarray(dataset.records.label)[train_rows]
    preprocess = Preprocess(
        **{key: config.data[key] for key in ("height", "width", "bit_depth", "page")}
    )
    augmentation = augmentation_of(config.data)
    augmentation.require_shape(preprocess.height, preprocess.width)
    order = BatchOrder(
        labels,
        batch_size=config.train.batch_size,
        seed=config.seed,
        views=augmentation.expansion,
        sampling=config.data.sampling,
    )
    mesh = make_mesh()
    require_divisible(config.train.batch_size // config.optim.accumulate, mesh, "train.batch_size")
    model = create_model(num_classes=len(dataset.class_names), **config.model.to_dict())
    shape = (1, preprocess.height, preprocess.width, 3)
    params = initializer(model, shape).eval_shape(jax.random.key(0))["params"]
    unfreezing = unfreezing_epochs(params, config.init.unfreeze)
    schedule = make_schedule(
        config.optim,
        total_steps=config.train.epochs * order.steps_per_epoch,
        steps_per_epoch=order.steps_per_epoch,
    )
    tx = make_optimizer(
        config.optim,
        schedule,
        starts={path: epoch * order.steps_per_epoch for path, epoch in unfreezing.items()},
        factors=learning_rate_factors(params, config.optim.lr_factors),
    )
    step_config = StepConfig(
        augmentation=augmentation,
        label_smoothing=config.optim.label_smoothing,
        accumulate=config.optim.accumulate,
        ema=config.optim.ema,
        trainable=_trainable(params, config.init.trainable, unfreezing),
        # Re-estimated statistics are measured before the first step and then stay, too.
        frozen_norm=config.init.batch_norm != "train",
    )
    class_weights = _class_weights(config.optim, labels, dataset.class_names)
    source = None
    if config.init.checkpoint and saved is None:
        source = open_weights(
            config.init.checkpoint, model_name=config.model.name, model=model, preprocess=preprocess
        )
    # Last, since decoding may take minutes: wrong values are reported before.
    pixels = open_pixels(dataset, preprocess, config.data, progress=progress)
    mean, std = _normalization(pixels, train_rows, source, saved)
    return Experiment(
        config=config,
        dataset=dataset,
        split=split,
        preprocess=preprocess,
        pixels=pixels,
        mean=mean,
        std=std,
        class_weights=class_weights,
        order=order,
        model=model,
        tx=tx,
        schedule=schedule,
        step_config=step_config,
        mesh=mesh,
        unfreezing=unfreezing,
        source=source,
    )


def _normalization(
    pixels: np.ndarray | OnDemandPixels,
    train_rows: np.ndarray,
    source: TrainedNetwork | None,
    saved: Mapping[str, Any] | None,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation: the run's own, its source's, or those of the train split."""
    if saved is not None:
        mean, std = saved["normalization"]["mean"], saved["normalization"]["std"]
    elif source is not None:
        # Copied weights expect the pixels they were trained on.
        mean, std = source.mean, source.std
    else:
        mean, std = channel_statistics(pixels, train_rows)
    return _floats(mean), _floats(np.maximum(std, SMALLEST_STD))


def _trainable(
    params: PyTree, patterns: Sequence[str], unfreezing: Mapping[str, int]
) -> tuple[str, ...] | None:
    """Paths of what trains from the start or later; None where that is everything, at once."""
    paths = trainable_paths(params, patterns)
    early = sorted(set(paths) & unfreezing.keys())
    if early and len(paths) < len(jax.tree.leaves(params)):
        raise ConfigError(
            f"init.unfreeze lets {early[0]} train later, init.trainable from the start:"
            " name it in one of them"
        )
    if unfreezing:
        return tuple(sorted({*paths, *unfreezing}))
    return None if len(paths) == len(jax.tree.leaves(params)) else paths


def _class_weights(optim, labels: np.ndarray, class_names) -> tuple[float, ...] | None:
    """``n / (K n_c)`` a class when balanced, so that every class has the same total weight."""
    if optim.class_weights == "none":
        return None
    if optim.class_weights != "balanced":
        raise ConfigError(f"optim.class_weights {optim.class_weights!r} is not none or balanced")
    counts = np.bincount(labels, minlength=len(class_names))
    return tuple(float(len(labels) / (len(counts) * count)) for count in counts)


def _floats(values) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue
