"""From a config to everything a run consists of: data, split, network, optimizer, recipe."""

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
from rcmnet_jax.interop.pretrained import open_weights
from rcmnet_jax.models import create_model
from rcmnet_jax.training.config_checks import check_values
from rcmnet_jax.training.inputs import open_dataset, open_pixels, split_dataset
from rcmnet_jax.training.optimizer import make_optimizer, make_schedule
from rcmnet_jax.training.state import initializer
from rcmnet_jax.training.steps import Recipe
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
      recipe: normalisation, augmentation and loss.
      order: of the training examples.
      model: the network.
      tx: the optimizer.
      schedule: learning rate by step.
      mesh: the devices.
      unfreezing: path -> number of epochs after which the parameter trains.
      source: the trained run that the weights come from, if any.
    """

    config: ml_collections.ConfigDict
    dataset: CellDataset
    split: Split
    preprocess: Preprocess
    pixels: np.ndarray | OnDemandPixels
    recipe: Recipe
    order: BatchOrder
    model: nn.Module
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    mesh: Mesh
    unfreezing: dict[str, int]
    source: TrainedNetwork | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.train.epochs * self.order.steps_per_epoch

    def recipe_of_epoch(self, epoch: int) -> Recipe:
        """The recipe of an epoch, counted from 0, by what gradual unfreezing lets train in it."""
        waiting = tuple(sorted(path for path, start in self.unfreezing.items() if epoch < start))
        return dataclasses.replace(self.recipe, waiting=waiting)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one image as the network sees it, with a batch axis."""
        return (1, self.preprocess.height, self.preprocess.width, 3)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint records about the run, ready for JSON."""
        return {
            "config": self.config.to_dict(),
            "class_names": list(self.dataset.class_names),
            "preprocess": self.preprocess.to_dict(),
            "normalization": {"mean": list(self.recipe.mean), "std": list(self.recipe.std)},
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


def build_experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Prepares data and network for a config.

    Raises:
      ConfigError: values that do not exist or contradict each other.
      DataError: images, manifest or split that cannot be used.
    """
    check_values(config)
    progress = config.log.progress
    dataset = open_dataset(config.data, progress=progress)
    split = split_dataset(dataset, config.data.split)
    preprocess = Preprocess(height=config.data.height, width=config.data.width)
    augmentation = augmentation_of(config.data)
    augmentation.require_shape(preprocess.height, preprocess.width)
    model = create_model(num_classes=len(dataset.class_names), **config.model.to_dict())
    train_rows = split.indices("train")
    labels = np.asarray(dataset.records.label)[train_rows]
    order = BatchOrder(
        labels,
        batch_size=config.train.batch_size,
        seed=config.seed,
        views=augmentation.expansion,
        sampling=config.data.sampling,
    )
    mesh = make_mesh()
    require_divisible(config.train.batch_size // config.optim.accumulate, mesh, "train.batch_size")
    schedule = make_schedule(
        config.optim,
        total_steps=config.train.epochs * order.steps_per_epoch,
        steps_per_epoch=order.steps_per_epoch,
    )
    class_weights = _class_weights(config.optim, labels, dataset.class_names)
    source = _open_source(config, model, preprocess)
    params = _abstract_params(model, preprocess)
    unfreezing = unfreezing_epochs(params, config.init.unfreeze)
    trainable = _trainable(params, config.init.trainable, unfreezing)
    tx = make_optimizer(
        config.optim,
        schedule,
        starts={path: epoch * order.steps_per_epoch for path, epoch in unfreezing.items()},
        factors=learning_rate_factors(params, config.optim.lr_factors),
    )
    # Last, since it may take minutes: a wrong value is told before.
    pixels = open_pixels(dataset, preprocess, config.data, progress=progress)
    if source is None:
        mean, std = channel_statistics(pixels, train_rows)
    else:
        # Copied weights expect the pixels they were trained on.
        mean, std = np.asarray(source.mean), np.asarray(source.std)
    return Experiment(
        config=config,
        dataset=dataset,
        split=split,
        preprocess=preprocess,
        pixels=pixels,
        recipe=Recipe(
            mean=_floats(mean),
            std=_floats(np.maximum(std, SMALLEST_STD)),
            augmentation=augmentation,
            label_smoothing=config.optim.label_smoothing,
            class_weights=class_weights,
            accumulate=config.optim.accumulate,
            ema=config.optim.ema,
            trainable=trainable,
            # Re-estimated statistics are measured before the first step and then stay, too.
            frozen_norm=config.init.batch_norm != "train",
        ),
        order=order,
        model=model,
        tx=tx,
        schedule=schedule,
        mesh=mesh,
        unfreezing=unfreezing,
        source=source,
    )


def _abstract_params(model: nn.Module, preprocess: Preprocess) -> PyTree:
    """Shapes of the parameters."""
    shape = (1, preprocess.height, preprocess.width, 3)
    return initializer(model, shape).eval_shape(jax.random.key(0))["params"]


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


def _open_source(config, model: nn.Module, preprocess: Preprocess) -> TrainedNetwork | None:
    """The weights that ``init.checkpoint`` names: a run, a bundle or a PyTorch file."""
    if not config.init.checkpoint:
        return None
    return open_weights(
        config.init.checkpoint, model_name=config.model.name, model=model, preprocess=preprocess
    )


def _class_weights(optim, labels: np.ndarray, class_names) -> tuple[float, ...] | None:
    """``n / (K n_c)`` a class when balanced, so that every class has the same total weight."""
    if optim.class_weights == "none":
        return None
    if optim.class_weights != "balanced":
        raise ConfigError(f"optim.class_weights {optim.class_weights!r} is not none or balanced")
    counts = np.bincount(labels, minlength=len(class_names))
    return tuple(float(len(labels) / (len(counts) * count)) for count in counts)


def _floats(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue
