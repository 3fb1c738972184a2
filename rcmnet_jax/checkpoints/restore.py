"""Opening a finished or running training run for evaluation, prediction or explanation."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import SingleDeviceSharding

from rcmnet_jax.checkpoints.store import CheckpointStore
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.models import create_model
from rcmnet_jax.types import PyTree, Variables


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained network with everything needed to use it.

    Attributes:
      model: the Linen module.
      variables: ``params`` and ``batch_stats``, float32, on the first local device.
      class_names: in the order of the logits.
      preprocess: how bytes become pixels.
      mean: per-channel mean to standardise with, in [0, 1].
      std: per-channel standard deviation.
      step: training step of the weights.
      meta: the checkpoint's whole record: config, data, split, provenance, scores.
    """

    model: nn.Module
    variables: Variables
    class_names: tuple[str, ...]
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    step: int
    meta: dict[str, Any]


def load_run(workdir: str | Path) -> Restored:
    """Opens the best checkpoint of a training run, on any device.

    Args:
      workdir: what ``train.py --workdir`` was given.

    Raises:
      CheckpointError: no such run, or its checkpoint is damaged.
    """
    directory = Path(workdir) / "checkpoints" / "best"
    if not directory.is_dir():
        raise CheckpointError(
            f"{workdir} holds no trained model: give the --workdir of a train.py run that has"
            " finished at least one epoch"
        )
    with contextlib.closing(CheckpointStore(directory, read_only=True)) as store:
        return _restore(store, directory)


def _restore(store: CheckpointStore, directory: Path) -> Restored:
    if not store.steps:
        raise CheckpointError(f"{directory} holds no checkpoint: train for at least one epoch")
    meta = store.newest_meta()
    if meta is None:
        raise CheckpointError(f"no checkpoint in {directory} can be read: restore it from a copy")
    preprocess = Preprocess.from_dict(meta["preprocess"])
    model = create_model(num_classes=len(meta["class_names"]), **meta["config"]["model"])
    saved = store.restore(_abstract_variables(model, preprocess))
    assert saved is not None  # There are steps, and none that is whole is an error.
    return Restored(
        model=model,
        variables=saved.state,
        class_names=tuple(meta["class_names"]),
        preprocess=preprocess,
        mean=tuple(meta["normalization"]["mean"]),
        std=tuple(meta["normalization"]["std"]),
        step=saved.step,
        meta=saved.meta,
    )


def _abstract_variables(model: nn.Module, preprocess: Preprocess) -> PyTree:
    """Shapes of the variables, placed on the first local device: nothing of the training device."""
    image = jnp.zeros((1, preprocess.height, preprocess.width, 3), jnp.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    here = SingleDeviceSharding(jax.local_devices()[0])
    variables = {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), variables
    )
