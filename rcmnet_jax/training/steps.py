"""The training and evaluation steps: pure functions of arrays, compiled by the loop."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rcmnet_jax.data.augment import augment, draw_views, standardize
from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.transfer.freezing import join_params, part_params
from rcmnet_jax.types import PyTree, Variables

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a step does besides the network and the optimizer; hashable, so it is static in jit.

    Attributes:
      mean: per-channel mean of the train split, in [0, 1]. Within a run's step it, ``std``,
        ``class_weights`` and ``learning_rate`` are arrays that the step is given, so that folds and
        runs of other rates share one program.
      std: per-channel standard deviation of the train split.
      learning_rate: (), or (S,) for S steps in one call; None: by the optimizer's schedule.
      augmentation: of training images.
      label_smoothing: mass spread evenly over all classes, in [0, 1).
      class_weights: one factor a class on its examples' loss, or None.
      accumulate: micro-batches a step is computed in; batch norm sees each by itself.
      ema: decay of the averaged weights; 0 keeps none.
      trainable: paths of the parameters that train, see `rcmnet_jax.transfer`; None: all.
      waiting: those of them that do not train yet: gradual unfreezing.
      frozen_norm: run batch norm with its running statistics, which then stay as they are.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    learning_rate: jax.Array | None = None
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    accumulate: int = 1
    ema: float = 0.0
    trainable: tuple[str, ...] | None = None
    waiting: tuple[str, ...] = ()
    frozen_norm: bool = False

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """What of it is measured on the train split, float32: a step is given these as arrays."""
        measured = {"mean": self.mean, "std": self.std, "class_weights": self.class_weights}
        return {
            name: np.asarray(values, np.float32)
            for name, values in measured.items()
            if values is not None
        }

    @property
    def differentiated(self) -> tuple[str, ...] | None:
        """Paths of the parameters that have a gradient in this step; None: all."""
        if self.trainable is None:
            return None
        return tuple(path for path in self.trainable if path not in self.waiting)


def train_step(
    state: TrainState, batch: PyTree, key: jax.Array, *, recipe: Recipe
) -> tuple[TrainState, Metrics]:
    """One optimizer step.

    Args:
      state: to be replaced; the loop donates it.
      batch: ``image`` (B, H, W, 3) uint8, ``label`` (B,) int32, ``view`` (B,) int32. Instead of
        images, ``features`` (B, V, h, w, C): the pooled features of all views of each, which a
        frozen backbone gives once and for all; see `rcmnet_jax.transfer.frozen_features`.
      key: the run's random key; the step number is folded in here, so a resumed run draws what
        an uninterrupted one would.
      recipe: see `Recipe`.

    Returns:
      The new state, and the metrics of the batch before the update: mean ``loss``, number
      ``correct``, ``gradient_norm``.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    if "features" in batch:
        view_B = draw_views(batch["view"], augment_key, recipe.augmentation)
        x = batch["features"][jnp.arange(view_B.shape[0]), view_B]
        apply_backbone = _given_features
    else:
        x = augment(batch["image"], batch["view"], augment_key, recipe.augmentation)
        x = standardize(x, recipe.mean, recipe.std)
        apply_backbone = functools.partial(_backbone, state.apply_fn, train=not recipe.frozen_norm)
    gradients, batch_stats, metrics = _accumulated_gradients(
        state, x, batch["label"], dropout_key, recipe, apply_backbone
    )
    state = _update(state, gradients, batch_stats, recipe)
    if recipe.ema:
        state = state.replace(ema_params=_averaged(state, recipe))
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    return state, metrics


def _averaged(state: TrainState, recipe: Recipe) -> PyTree:
    """The moving averages, one step on; those of frozen parameters are not even rounded."""
    new, _ = part_params(state.params, recipe.differentiated)
    old, rests = part_params(state.ema_params, recipe.differentiated)
    return join_params(optax.incremental_update(new, old, 1 - recipe.ema), rests)


def _backbone(apply_fn: Callable, variables: Variables, x_BxHxWx3: jax.Array, *, train: bool):
    """Feature map and new batch statistics of standardised images."""
    features, updates = apply_fn(
        variables, x_BxHxWx3, train=train, mutable=["batch_stats"], method="features"
    )
    return features, updates.get("batch_stats", {})


def _given_features(variables: Variables, features: jax.Array):
    """Features as they are, and batch statistics as they were."""
    return features, variables["batch_stats"]


def _update(state: TrainState, gradients: PyTree, batch_stats: PyTree, recipe: Recipe):
    """The state after the optimizer has moved the parameters that train."""
    trains, rests = part_params(state.params, recipe.trainable)
    if recipe.waiting:
        # The optimizer knows them already and leaves them alone: see `make_optimizer`.
        waits, _ = part_params(trains, recipe.waiting)
        gradients = join_params(gradients, jax.tree.map(jnp.zeros_like, waits))
    # Other optimizers of optax do not know the word.
    given = {} if recipe.learning_rate is None else {"learning_rate": recipe.learning_rate}
    updates, opt_state = state.tx.update(gradients, state.opt_state, trains, **given)
    return state.replace(
        step=state.step + 1,
        params=join_params(optax.apply_updates(trains, updates), rests),
        opt_state=opt_state,
        batch_stats=batch_stats,
    )


def train_steps_on_device(
    state: TrainState,
    split: PyTree,
    index_SxB: jax.Array,
    view_SxB: jax.Array,
    key: jax.Array,
    *,
    recipe: Recipe,
) -> tuple[TrainState, Metrics]:
    """S steps in one call, their batches gathered from a train split that lies on the device.

    Args:
      state: to be replaced.
      split: ``image`` (N, H, W, 3) uint8, or ``features`` (N, V, h, w, C), and ``label`` (N,)
        int32 of the whole train split; rows that no batch names may follow.
      index_SxB: rows of each step's batch.
      view_SxB: their views.
      key: the run's random key.
      recipe: see `Recipe`.

    Returns:
      The state after S steps, and the metrics of each, (S,).
    """

    def step(state, of_step):
        index_B, view_B, rate = of_step
        batch = {**{name: column[index_B] for name, column in split.items()}, "view": view_B}
        of_rate = dataclasses.replace(recipe, learning_rate=rate)
        return train_step(state, batch, key, recipe=of_rate)

    of_steps = (index_SxB, view_SxB, recipe.learning_rate)
    if index_SxB.shape[0] == 1:
        # Without the loop around it, a single step compiles faster and runs no slower.
        state, metrics = step(state, jax.tree.map(lambda value: value[0], of_steps))
        return state, jax.tree.map(lambda value: value[None], metrics)
    return jax.lax.scan(step, state, of_steps)


def predict_step(
    apply_fn: Callable,
    variables: Variables,
    image_BxHxWx3: jax.Array,
    *,
    mean: tuple[float, ...] | jax.Array,
    std: tuple[float, ...] | jax.Array,
) -> jax.Array:
    """Logits (B, K) of uint8 images, standardised by ``mean`` and ``std`` (3,), not augmented."""
    x_BxHxWx3 = standardize(image_BxHxWx3.astype(jnp.float32) / 255, mean, std)
    return apply_fn(variables, x_BxHxWx3, train=False)


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


def example_weights(
    label_B: jax.Array, class_weights: tuple[float, ...] | jax.Array | None
) -> jax.Array:
    """Weights with mean 1 over the batch, which makes a weighted mean, ``sum(w loss) / sum(w)``."""
    if class_weights is None:
        return jnp.ones(label_B.shape, jnp.float32)
    weight_B = jnp.asarray(class_weights, jnp.float32)[label_B]
    return weight_B / weight_B.mean()


def _accumulated_gradients(
    state: TrainState, x, label, key, recipe: Recipe, apply_backbone: Callable
):
    """Gradients of what trains, new batch statistics and metrics, in micro-batches."""
    trains, rests = part_params(state.params, recipe.differentiated)

    def loss_fn(trains, batch_stats, x, label, weight, key):
        variables = {"params": join_params(trains, rests), "batch_stats": batch_stats}
        features, batch_stats = apply_backbone(variables, x)
        logits = state.apply_fn(
            variables, features, train=True, rngs={"dropout": key}, method="classify"
        )
        loss = cross_entropy(logits, label, label_smoothing=recipe.label_smoothing, weight_B=weight)
        correct = (logits.argmax(-1) == label).sum()
        return loss, (batch_stats, {"loss": loss, "correct": correct})

    gradient_fn = jax.grad(loss_fn, has_aux=True)
    # Of the whole batch, so that micro-batches add up to the same weighted mean.
    weight = example_weights(label, recipe.class_weights)
    parts = recipe.accumulate
    if parts == 1:
        gradients, (batch_stats, metrics) = gradient_fn(
            trains, state.batch_stats, x, label, weight, key
        )
        return gradients, batch_stats, metrics

    def micro_step(carry, part):
        total, batch_stats = carry
        x, label, weight, number = part
        gradients, (batch_stats, metrics) = gradient_fn(
            trains, batch_stats, x, label, weight, jax.random.fold_in(key, number)
        )
        return (jax.tree.map(jnp.add, total, gradients), batch_stats), metrics

    zeros = jax.tree.map(jnp.zeros_like, trains)
    micro = jax.tree.map(
        lambda a: a.reshape(parts, a.shape[0] // parts, *a.shape[1:]), (x, label, weight)
    )
    (total, batch_stats), metrics = jax.lax.scan(
        micro_step, (zeros, state.batch_stats), (*micro, jnp.arange(parts))
    )
    gradients = jax.tree.map(lambda g: g / parts, total)
    return (
        gradients,
        batch_stats,
        {"loss": metrics["loss"].mean(), "correct": metrics["correct"].sum()},
    )
