"""Momentum SGD with warm-up and cosine decay; weight decay on kernels only.

The paper says SGD and nothing more; what we chose for the rest is in
docs/decisions/0006-optimizer.md.
"""

import itertools
from collections.abc import Mapping

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.types import PyTree

SCHEDULES = ("cosine", "constant")


def make_schedule(optim, *, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up from zero, then cosine to zero or constant.

    Args:
      optim: the config group ``optim``.
      total_steps: of the whole run.
      steps_per_epoch: converts ``warmup_epochs``.

    Raises:
      ConfigError: unknown schedule, a rate that is not positive, or a warm-up that is negative or
        longer than the run.
    """
    if optim.schedule not in SCHEDULES:
        raise ConfigError(f"optim.schedule {optim.schedule!r} is not one of {', '.join(SCHEDULES)}")
    if optim.learning_rate <= 0:
        raise ConfigError(f"optim.learning_rate must be positive, got {optim.learning_rate}")
    if optim.warmup_epochs < 0:
        raise ConfigError(f"optim.warmup_epochs must not be negative, got {optim.warmup_epochs}")
    warmup = round(optim.warmup_epochs * steps_per_epoch)
    if warmup and warmup >= total_steps:
        raise ConfigError(
            f"optim.warmup_epochs={optim.warmup_epochs} is as long as the whole run:"
            " shorten it, or raise train.epochs"
        )
    if optim.schedule == "cosine":
        decay = optax.cosine_decay_schedule(optim.learning_rate, max(total_steps - warmup, 1))
    else:
        decay = optax.constant_schedule(optim.learning_rate)
    if not warmup:
        return decay
    rise = optax.linear_schedule(0.0, optim.learning_rate, warmup)
    return optax.join_schedules([rise, decay], [warmup])


def make_optimizer(
    optim,
    schedule: optax.Schedule,
    *,
    starts: Mapping[str, int] | None = None,
    factors: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """Clipping, then weight decay, then momentum SGD: PyTorch's order, so decay enters momentum.

    Args:
      optim: the config group ``optim``.
      schedule: learning rate by step, the same for all parameters; of an update that is given a
        ``learning_rate``, that.
      starts: path -> step from which the parameter trains; before it neither decay nor momentum
        touches it. Paths that are not named train from the start.
      factors: path -> what its learning rate is multiplied by; 1 where not named.

    Raises:
      ConfigError: a momentum outside [0, 1), or a negative decay or clipping norm.
    """
    if not 0 <= optim.momentum < 1:
        raise ConfigError(f"optim.momentum must be in [0, 1), got {optim.momentum}")
    if optim.weight_decay < 0 or optim.clip_norm < 0:
        raise ConfigError("optim.weight_decay and optim.clip_norm must not be negative")
    starts, factors = starts or {}, factors or {}
    clip = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []

    def one_group(start: int, factor: float) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(optim.weight_decay, mask=kernels_only)
        descent = optax.chain(decay, optax.trace(optim.momentum, nesterov=optim.nesterov))
        if start:
            descent = optax.conditionally_mask(descent, lambda step: step >= start)
        return optax.chain(descent, optax.scale(factor)) if factor != 1 else descent

    def groups_of(params: PyTree) -> PyTree:
        paths = flatten_dict(params, sep="/")
        groups = {path: f"{starts.get(path, 0)}, {factors.get(path, 1.0)}" for path in paths}
        return unflatten_dict(groups, sep="/")

    if starts or factors:
        kinds = itertools.product({0, *starts.values()}, {1.0, *factors.values()})
        descent = optax.partition({f"{s}, {f}": one_group(s, f) for s, f in kinds}, groups_of)
    else:
        descent = one_group(0, 1.0)
    return optax.chain(*clip, descent, _scale_by_rate(schedule))


def _scale_by_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_learning_rate`, by the ``learning_rate`` that an update is given, if it is.

    A schedule is built into a compiled step; a rate that is given is not, so that runs of other
    rates and lengths share the step.
    """

    def update(updates, state, params=None, *, learning_rate=None, **_):
        rate_at = schedule if learning_rate is None else lambda step: learning_rate
        return optax.scale_by_learning_rate(rate_at).update(updates, state, params)

    init = optax.scale_by_learning_rate(schedule).init
    return optax.GradientTransformationExtraArgs(init, update)


def kernels_only(params: PyTree) -> PyTree:
    """True for every leaf named ``kernel``: not for biases, norm scales and position tables."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
