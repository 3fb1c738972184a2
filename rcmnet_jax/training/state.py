"""Everything that training changes, in one tree."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import train_state

from rcmnet_jax.kernels.backend import plainly
from rcmnet_jax.transfer.freezing import part_params
from rcmnet_jax.types import PyTree, Variables


class TrainState(train_state.TrainState):
    """Flax's train state with batch-norm statistics and, optionally, averaged weights.

    Attributes:
      batch_stats: running statistics; empty for networks without batch norm.
      ema_params: exponential moving average of the parameters, or None.
    """

    batch_stats: PyTree
    ema_params: PyTree | None = None

    @property
    def eval_variables(self) -> Variables:
        """Variables for validation, checkpoints and prediction: averaged where there are any."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


@functools.lru_cache(maxsize=8)
def initializer(model: nn.Module, input_shape: tuple[int, ...]) -> Any:
    """Jitted function from a random key to fresh variables; its ``eval_shape`` gives their shapes.

    Kept for each network and shape, because tracing a network takes about a second.

    Args:
      model: one of our networks.
      input_shape: (B, H, W, 3); the batch size does not matter.
    """

    image = jax.ShapeDtypeStruct(input_shape, jnp.float32)

    def init(key):
        # Lazy: only the drawing of the parameters is lowered, not the forward pass.
        with plainly():
            return model.lazy_init(key, image, train=False)

    # Twenty random draws of different shapes take XLA's CPU compiler 27 s at full optimisation and
    # 6 s at this level; they run once.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    return jax.jit(init, compiler_options=options)


def create_train_state(
    key: jax.Array,
    model: nn.Module,
    tx: optax.GradientTransformation,
    input_shape: tuple[int, ...],
    *,
    ema: bool = False,
    trainable: tuple[str, ...] | None = None,
) -> TrainState:
    """Fresh weights and optimizer state.

    Args:
      key: random key of the initial weights.
      model: one of our networks.
      tx: any optax optimizer.
      input_shape: (B, H, W, 3); the batch size does not matter.
      ema: whether to keep averaged weights.
      trainable: paths of the parameters that train; the optimizer sees no others. None: all.
    """
    with_optimizer = jax.jit(functools.partial(_with_optimizer, model, tx, ema, trainable))
    return with_optimizer(initializer(model, input_shape)(key))


def abstract_train_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    input_shape: tuple[int, ...],
    *,
    ema: bool = False,
    trainable: tuple[str, ...] | None = None,
) -> TrainState:
    """Shapes and types of `create_train_state`, with nothing drawn or compiled."""
    variables = initializer(model, input_shape).eval_shape(jax.random.key(0))
    with_optimizer = functools.partial(_with_optimizer, model, tx, ema, trainable)
    return jax.eval_shape(with_optimizer, variables)


def _with_optimizer(
    model: nn.Module,
    tx: optax.GradientTransformation,
    ema: bool,
    trainable: tuple[str, ...] | None,
    variables: Variables,
) -> TrainState:
    params = variables["params"]
    return TrainState(
        # An array from the start: a Python int here would compile the step twice.
        step=jnp.zeros((), jnp.int32),
        apply_fn=model.apply,
        params=params,
        tx=tx,
        opt_state=tx.init(part_params(params, trainable)[0]),
        batch_stats=variables.get("batch_stats", {}),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    )
