"""Where a run starts from: its own newest checkpoint, another run's weights, or fresh ones."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rcmnet_jax.checkpoints.store import CheckpointStore
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.hosts.mesh import put_replicated, replicated
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.training.experiment import Experiment
from rcmnet_jax.training.saving import Progress
from rcmnet_jax.training.state import TrainState, abstract_train_state, create_train_state
from rcmnet_jax.transfer.batch_norm import reestimate_on
from rcmnet_jax.transfer.surgery import TransferReport, transfer_params

logger = logging.getLogger(__name__)


def saved_record(workdir: Path) -> dict[str, Any] | None:
    """The record in the newest training checkpoint of a run's folder; None if there is none."""
    directory = workdir / "checkpoints" / "last"
    if not directory.is_dir():
        return None
    with contextlib.closing(CheckpointStore(directory, read_only=True)) as store:
        return store.newest_meta()


def restore_or_init(
    experiment: Experiment, store: CheckpointStore, meta: dict[str, Any], workdir: Path
) -> tuple[TrainState, Progress]:
    """State and position to start from, in this order.

    1. The newest whole checkpoint of this folder.
    2. The weights of ``init.checkpoint``, all but ``init.keep_fresh``.
    3. Fresh weights.

    Args:
      experiment: the run.
      store: its training checkpoints.
      meta: the record for its new checkpoints; the report of a transfer is added to it.
      workdir: named in errors.

    Raises:
      CheckpointError: checkpoints of other data, none that is whole, or weights that do not fit.
    """
    network = (experiment.model, experiment.tx, experiment.input_shape)
    ema, trainable = bool(experiment.config.optim.ema), experiment.step_config.trainable
    abstract_state = abstract_train_state(*network, ema=ema, trainable=trainable)
    saved = _restore(experiment, store, meta, abstract_state, workdir)
    if saved is not None:
        return saved
    key = jax.random.key(experiment.config.seed)
    state = create_train_state(key, *network, ema=ema, trainable=trainable)
    if experiment.source is not None:
        state = _transferred(state, experiment, experiment.source, meta)
    if experiment.config.init.batch_norm == "reestimate":
        state = _with_reestimated_statistics(state, experiment)
    return put_replicated(state, experiment.mesh), Progress()


def _restore(
    experiment: Experiment,
    store: CheckpointStore,
    meta: dict[str, Any],
    abstract_state: TrainState,
    workdir: Path,
) -> tuple[TrainState, Progress] | None:
    """The newest whole checkpoint of this run; None if there are no checkpoints."""
    # First, since with other classes the arrays would not even fit. One record that agrees will do:
    # another may be damaged, which `restore` finds out.
    differing = [_other_data(saved, meta) for saved in store.metas()]
    if differing and all(differing):
        raise CheckpointError(f"{workdir} {differing[0]}")
    here = replicated(experiment.mesh)
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), abstract_state
    )
    saved = store.restore(template)
    if saved is None:
        return None
    if difference := _other_data(saved.meta, meta):
        raise CheckpointError(f"{workdir} {difference}")
    if "transfer" in saved.meta:
        meta["transfer"] = saved.meta["transfer"]
    return saved.state, Progress.from_dict(saved.progress)


def _transferred(
    state: TrainState, experiment: Experiment, source: TrainedNetwork, meta: dict[str, Any]
) -> TrainState:
    """A fresh state with the weights of ``init.checkpoint``; its report goes into the record."""
    init = experiment.config.init
    _warn_other_size(experiment, source)
    variables, report = transfer_params(
        source.variables,
        {"params": state.params, "batch_stats": state.batch_stats},
        keep_fresh=(*init.keep_fresh, *source.absent),
    )
    meta["transfer"] = {"from": init.checkpoint, **report.to_dict()}
    logger.info("weights of %s:\n%s", init.checkpoint, report.table())
    _warn_unused_weights(report, experiment.config.model.name)
    params = variables["params"]
    return state.replace(
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        # Copies: the loop donates the state, and a buffer donated twice is a crash.
        ema_params=None if state.ema_params is None else jax.tree.map(jnp.copy, params),
    )


def _warn_other_size(experiment: Experiment, source: TrainedNetwork) -> None:
    """Convolutions fit any size, and yet cells look different at another one."""
    before, now = source.preprocess, experiment.preprocess
    if before and (before.height, before.width) != (now.height, now.width):
        logger.warning(
            "the weights were trained at %dx%d pixels, this run is at %dx%d: cells appear larger or"
            " smaller than the network knows them, and position tables are resized",
            before.height,
            before.width,
            now.height,
            now.width,
        )


def _warn_unused_weights(report: TransferReport, model: str) -> None:
    """Weights of another kind of network may fit, though trained together with unused ones."""
    unused = [
        path for path in report.unused if path.startswith("params/") and path not in report.fresh
    ]
    if unused:
        logger.warning(
            "%d trained arrays have no place in a %s (%s, ...), and those that were copied were"
            " trained together with them: is this the model that init.checkpoint holds?",
            len(unused),
            model,
            unused[0],
        )


def _with_reestimated_statistics(state: TrainState, experiment: Experiment) -> TrainState:
    """Batch-norm statistics of the new train split, its images as they are."""
    rows = experiment.split.indices("train")
    before = {"params": state.params, "batch_stats": state.batch_stats}
    after = reestimate_on(
        experiment.model, before, experiment.pixels, rows, mean=experiment.mean, std=experiment.std
    )
    logger.info("batch-norm statistics re-estimated on %d training images", len(rows))
    return state.replace(batch_stats=after["batch_stats"])


def _other_data(saved: dict[str, Any], now: dict[str, Any]) -> str:
    """How the images, split or classes of a checkpoint differ from the run's; "" if they agree."""
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
