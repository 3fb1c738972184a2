"""The training step: pure functions of arrays, compiled by the loop."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from rcmnet_jax.data.augment import augment, draw_views, standardize
from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.errors import UserError
from rcmnet_jax.hosts.mesh import replicated
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.transfer.freezing import join_params, part_params
from rcmnet_jax.types import PyTree, Variables

Array = jax.Array | np.ndarray
Metrics = dict[str, jax.Array]
METRICS = {"loss": "float32", "accuracy": "float32", "correct": "int32", "gradient_norm": "float32"}


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Static settings of a training step; hashable, so each compiles to a program of its own.

    Attributes:
      augmentation: of training images; none by default.
      label_smoothing: mass spread evenly over all classes, in [0, 1).
      accumulate: micro-batches a step is computed in; batch norm sees each by itself.
      ema: decay of the averaged weights; 0 keeps none.
      trainable: paths of the parameters that train, see `rcmnet_jax.transfer`; None: all.
      waiting: those of them that do not train yet (gradual unfreezing).
      frozen_norm: run batch norm with its running statistics, and leave these alone.
    """

    augmentation: Augmentation = dataclasses.field(default=Augmentation("none"))
    label_smoothing: float = 0.0
    accumulate: int = 1
    ema: float = 0.0
    trainable: tuple[str, ...] | None = None
    waiting: tuple[str, ...] = ()
    frozen_norm: bool = False

    @property
    def differentiated(self) -> tuple[str, ...] | None:
        """Paths of the parameters that have a gradient in this step; None: all."""
        if self.trainable is None:
            return None
        return tuple(path for path in self.trainable if path not in self.waiting)


@struct.dataclass
class StepInputs:
    """Arrays that a step is given beside its batch, so that other values need no new program.

    Attributes:
      mean: per-channel mean to standardise with, (3,) float32 in [0, 1]; None: images stay in
        [0, 1].
      std: per-channel standard deviation, (3,) float32; given exactly where ``mean`` is.
      class_weights: factor on the loss of each class's examples, (K,) float32; None: 1.
      learning_rate: (), or (S,) for S steps in one call; None: by the optimizer's own schedule.
    """

    mean: Array | None = None
    std: Array | None = None
    class_weights: Array | None = None
    learning_rate: Array | None = None


def train_step(
    state: TrainState,
    batch: PyTree,
    key: jax.Array,
    inputs: StepInputs = StepInputs(),
    *,
    config: StepConfig = StepConfig(),
) -> tuple[TrainState, Metrics]:
    """One optimizer step.

    Args:
      state: replaced by the result; donate it when compiling.
      batch: ``image`` (B, H, W, 3) uint8 and ``label`` (B,) int32; with the paper's six views also
        ``view`` (B,) int32. Instead of images, ``features`` (B, V, h, w, C): the pooled features of
        all views, which a frozen backbone gives once and for all.
      key: the run's random key; the step number is folded in here, so a resumed run draws what
        an uninterrupted one would.
      inputs: standardisation, class weights and learning rate.
      config: static settings.

    Returns:
      The new state, and the metrics of the batch before the update: mean ``loss`` in nats, number
      ``correct``, ``accuracy`` in [0, 1], ``gradient_norm``.

    Raises:
      UserError: images that are not uint8.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    view_B = batch["view"] if "view" in batch else jnp.zeros(batch["label"].shape, jnp.int32)
    if "features" in batch:
        view_B = draw_views(view_B, augment_key, config.augmentation)
        x = batch["features"][jnp.arange(view_B.shape[0]), view_B]
        backbone = _given_features
    else:
        _require_uint8(batch["image"])
        x = augment(batch["image"], view_B, augment_key, config.augmentation)
        if inputs.mean is not None and inputs.std is not None:
            x = standardize(x, jnp.asarray(inputs.mean), jnp.asarray(inputs.std))
        backbone = functools.partial(_backbone, state.apply_fn, train=not config.frozen_norm)
    weight_B = example_weights(batch["label"], inputs.class_weights)
    gradients, batch_stats, metrics = _gradients(
        state, (x, batch["label"], weight_B), dropout_key, config, backbone
    )
    metrics["accuracy"] = metrics["correct"] / batch["label"].size
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    state = _update(state, gradients, batch_stats, inputs.learning_rate, config)
    if config.ema:
        state = state.replace(ema_params=_averaged(state, config))
    return state, metrics


def train_steps_on_device(
    state: TrainState,
    split: PyTree,
    index_SxB: jax.Array,
    view_SxB: jax.Array,
    count: jax.Array,
    key: jax.Array,
    inputs: StepInputs,
    *,
    config: StepConfig,
) -> tuple[TrainState, Metrics]:
    """Up to S steps in one call, their batches gathered from a train split on the device.

    Args:
      state: replaced by the result.
      split: ``image`` (N, H, W, 3) uint8, or ``features`` (N, V, h, w, C), and ``label`` (N,)
        int32 of the train split; rows that no batch names may follow.
      index_SxB: rows of each step's batch.
      view_SxB: their views.
      count: () int32, steps to take, at most S: one program serves the short end of an epoch too.
      key: the run's random key.
      inputs: with ``learning_rate`` (S,) where it has one.
      config: static settings.

    Returns:
      The state after these steps, and the metrics of each, (S,); 0 where no step was taken.
    """
    rate_S = inputs.learning_rate

    def step(number, state):
        batch = {name: column[index_SxB[number]] for name, column in split.items()}
        batch["view"] = view_SxB[number]
        given = (
            inputs if rate_S is None else dataclasses.replace(inputs, learning_rate=rate_S[number])
        )
        return train_step(state, batch, key, given, config=config)

    def step_and_record(number, carry):
        state, metrics_S = carry
        state, metrics = step(number, state)
        return state, {name: metrics_S[name].at[number].set(metrics[name]) for name in METRICS}

    steps = index_SxB.shape[0]
    if steps == 1:
        # Without the loop around it, a single step compiles faster and runs no slower.
        state, metrics = step(0, state)
        return state, {name: value[None] for name, value in metrics.items()}
    metrics_S = {name: jnp.zeros(steps, dtype) for name, dtype in METRICS.items()}
    return jax.lax.fori_loop(0, count, step_and_record, (state, metrics_S))


def compile_step(config: StepConfig, mesh: Mesh, *, on_device: bool) -> Callable:
    """`train_steps_on_device` or `train_step`, jitted with its state donated and replicated."""
    step = train_steps_on_device if on_device else train_step
    # The shardings are explicit, so that restored and freshly trained states share one program.
    return jax.jit(
        functools.partial(step, config=config),
        donate_argnums=0,
        out_shardings=replicated(mesh),
    )


def cross_entropy(
    logits_BxK: jax.Array,
    label_B: jax.Array,
    *,
    label_smoothing: float = 0.0,
    weight_B: jax.Array | None = None,
) -> jax.Array:
    """Mean cross-entropy of the batch, in nats; each example's times its weight where given."""
    target_BxK = optax.smooth_labels(jax.nn.one_hot(label_B, logits_BxK.shape[-1]), label_smoothing)
    loss_B = optax.softmax_cross_entropy(logits_BxK, target_BxK)
    return loss_B.mean() if weight_B is None else (weight_B * loss_B).mean()


def example_weights(label_B: jax.Array, class_weights_K: Array | None) -> jax.Array:
    """Weights with mean 1 over the batch, which makes a weighted mean, ``sum(w loss) / sum(w)``."""
    if class_weights_K is None:
        return jnp.ones(label_B.shape, jnp.float32)
    weight_B = jnp.asarray(class_weights_K, jnp.float32)[label_B]
    return weight_B / weight_B.mean()


def _require_uint8(images: jax.Array) -> None:
    if images.dtype != jnp.uint8:
        raise UserError(
            f"training images are {images.dtype}, not uint8: give pixels of 0 to 255 as uint8;"
            " the step itself scales them to [0, 1]"
        )


def _backbone(apply_fn: Callable, variables: Variables, x_BxHxWx3: jax.Array, *, train: bool):
    """Feature map and new batch statistics of standardised images."""
    features, updates = apply_fn(
        variables, x_BxHxWx3, train=train, mutable=["batch_stats"], method="features"
    )
    return features, updates.get("batch_stats", {})


def _given_features(variables: Variables, features: jax.Array):
    """The given features, and batch statistics unchanged."""
    return features, variables["batch_stats"]


def _gradients(
    state: TrainState,
    examples: tuple[jax.Array, jax.Array, jax.Array],
    key: jax.Array,
    config: StepConfig,
    backbone: Callable,
) -> tuple[PyTree, PyTree, Metrics]:
    """Gradients of what trains, new batch statistics, and the batch's loss and hits."""
    trains, rests = part_params(state.params, config.differentiated)

    def loss_fn(trains, batch_stats, x, label_B, weight_B, key):
        variables = {"params": join_params(trains, rests), "batch_stats": batch_stats}
        features, batch_stats = backbone(variables, x)
        logits_BxK = state.apply_fn(
            variables, features, train=True, rngs={"dropout": key}, method="classify"
        )
        loss = cross_entropy(
            logits_BxK, label_B, label_smoothing=config.label_smoothing, weight_B=weight_B
        )
        correct = (logits_BxK.argmax(-1) == label_B).sum()
        return loss, (batch_stats, {"loss": loss, "correct": correct})

    gradient_fn = jax.grad(loss_fn, has_aux=True)
    if config.accumulate == 1:
        gradients, (batch_stats, metrics) = gradient_fn(trains, state.batch_stats, *examples, key)
        return gradients, batch_stats, metrics

    def micro_step(carry, part):
        total, batch_stats = carry
        number, micro_batch = part
        gradients, (batch_stats, metrics) = gradient_fn(
            trains, batch_stats, *micro_batch, jax.random.fold_in(key, number)
        )
        return (jax.tree.map(jnp.add, total, gradients), batch_stats), metrics

    parts = config.accumulate
    micro_batches = jax.tree.map(
        lambda a: a.reshape(parts, a.shape[0] // parts, *a.shape[1:]), examples
    )
    start = (jax.tree.map(jnp.zeros_like, trains), state.batch_stats)
    (total, batch_stats), metrics = jax.lax.scan(
        micro_step, start, (jnp.arange(parts), micro_batches)
    )
    gradients = jax.tree.map(lambda g: g / parts, total)
    means = {"loss": metrics["loss"].mean(), "correct": metrics["correct"].sum()}
    return gradients, batch_stats, means


def _update(
    state: TrainState,
    gradients: PyTree,
    batch_stats: PyTree,
    learning_rate: Array | None,
    config: StepConfig,
) -> TrainState:
    """The state after the optimizer has moved the parameters that train."""
    trains, rests = part_params(state.params, config.trainable)
    if config.waiting:
        # The optimizer knows them already and leaves them alone: see `make_optimizer`.
        waits, _ = part_params(trains, config.waiting)
        gradients = join_params(gradients, jax.tree.map(jnp.zeros_like, waits))
    # Only our own optimizers take a rate with the update.
    given = {} if learning_rate is None else {"learning_rate": learning_rate}
    updates, opt_state = state.tx.update(gradients, state.opt_state, trains, **given)
    return state.replace(
        step=state.step + 1,
        params=join_params(optax.apply_updates(trains, updates), rests),
        opt_state=opt_state,
        batch_stats=batch_stats,
    )


def _averaged(state: TrainState, config: StepConfig) -> PyTree:
    """The moving averages, one step on; those of frozen parameters are not even rounded."""
    new, _ = part_params(state.params, config.differentiated)
    old, rests = part_params(state.ema_params, config.differentiated)
    return join_params(optax.incremental_update(new, old, 1 - config.ema), rests)
