"""Where a run starts from: its own newest checkpoint, another run's weights, or fresh ones."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rcmnet_jax.checkpoints.store import CheckpointStore
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.hosts.mesh import put_replicated
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.training.experiment import Experiment
from rcmnet_jax.training.progress import Progress
from rcmnet_jax.training.state import TrainState, create_train_state
from rcmnet_jax.transfer.batch_norm import reestimate_on
from rcmnet_jax.transfer.surgery import TransferReport, transfer_params

logger = logging.getLogger(__name__)


def restore_or_init(
    experiment: Experiment, store: CheckpointStore, meta: dict[str, Any], workdir: Path
) -> tuple[TrainState, Progress]:
    """State and position to go on from, in this order.

    1. The newest whole checkpoint of this folder.
    2. The weights of ``init.checkpoint``, all but ``init.keep_fresh``.
    3. Fresh weights.

    Args:
      experiment: the run.
      store: its training checkpoints.
      meta: the record for its new checkpoints; what a transfer did is added to it.
      workdir: named in errors.

    Raises:
      CheckpointError: checkpoints of other data, none that is whole, or weights that do not fit.
    """
    config = experiment.config
    state = create_train_state(
        jax.random.key(config.seed),
        experiment.model,
        experiment.tx,
        experiment.input_shape,
        ema=bool(config.optim.ema),
        trainable=experiment.recipe.trainable,
    )
    # First, since with other classes the arrays would not even fit. One record that agrees will do:
    # another may be damaged, which `restore` finds out.
    differing = [_other_data(saved, meta) for saved in store.metas()]
    if differing and all(differing):
        raise CheckpointError(f"{workdir} {differing[0]}")
    saved = store.restore(put_replicated(state, experiment.mesh))
    if saved is not None:
        if told := _other_data(saved.meta, meta):
            raise CheckpointError(f"{workdir} {told}")
        if "transfer" in saved.meta:
            meta["transfer"] = saved.meta["transfer"]
        return saved.state, Progress.from_dict(saved.progress)
    if experiment.source is not None:
        _tell_other_size(experiment)
        state, report = _take_weights(state, experiment.source, tuple(config.init.keep_fresh))
        meta["transfer"] = {"from": config.init.checkpoint, **report.to_dict()}
        logger.info("weights of %s:\n%s", config.init.checkpoint, report.table())
        _tell_homeless(report, config.model.name)
    if config.init.batch_norm == "reestimate":
        state = _with_reestimated_statistics(state, experiment)
    return put_replicated(state, experiment.mesh), Progress()


def _tell_other_size(experiment: Experiment) -> None:
    """Convolutions fit any size, and yet cells look different at another one."""
    before, now = experiment.source and experiment.source.preprocess, experiment.preprocess
    if before and (before.height, before.width) != (now.height, now.width):
        logger.warning(
            "the weights were trained at %dx%d pixels, this run is at %dx%d: cells appear larger or"
            " smaller than the network knows them, and position tables are resized",
            before.height,
            before.width,
            now.height,
            now.width,
        )


def _tell_homeless(report: TransferReport, model: str) -> None:
    """Weights of another kind of network fit, and yet were trained together with what is left."""
    left = [path for path in report.unused if path.startswith("params/")]
    homeless = [path for path in left if path not in report.fresh]
    if homeless:
        logger.warning(
            "%d trained arrays have no place in a %s (%s, ...), and those that were copied were"
            " trained together with them: is this the model that init.checkpoint holds?",
            len(homeless),
            model,
            homeless[0],
        )


def _take_weights(
    state: TrainState, source: TrainedNetwork, keep_fresh: tuple[str, ...]
) -> tuple[TrainState, TransferReport]:
    """A fresh state with the weights of another run."""
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    variables, report = transfer_params(
        source.variables, fresh, keep_fresh=(*keep_fresh, *source.absent)
    )
    state = state.replace(
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        # Copies: a buffer that is given away twice, as the loop donates the state, is a crash.
        ema_params=None
        if state.ema_params is None
        else jax.tree.map(jnp.copy, variables["params"]),
    )
    return state, report


def _with_reestimated_statistics(state: TrainState, experiment: Experiment) -> TrainState:
    """Batch-norm statistics of the new train split, its images as they are."""
    rows, recipe = experiment.split.indices("train"), experiment.recipe
    before = {"params": state.params, "batch_stats": state.batch_stats}
    after = reestimate_on(
        experiment.model, before, experiment.pixels, rows, mean=recipe.mean, std=recipe.std
    )
    logger.info("batch-norm statistics re-estimated on %d training images", len(rows))
    return state.replace(batch_stats=after["batch_stats"])


def _other_data(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """What keeps a run from going on, if its checkpoint saw other images or another split."""
    for item, remedy in (
        ("data", "restore the images as they were"),
        ("split", "restore the split"),
        ("class_names", "use the same classes"),
    ):
        before, after = saved.get(item), now[item]
        if isinstance(after, dict):
            before = before.get("sha256") if isinstance(before, dict) else before
            after = after["sha256"]
        if before != after:
            return (
                f"was trained on another {item} ({str(before)[:12]}, now {str(after)[:12]}):"
                f" {remedy}, or choose another --workdir"
            )
    return ""
