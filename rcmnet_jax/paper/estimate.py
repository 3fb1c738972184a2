"""How long a plan takes on this machine, from a few training steps of each network."""

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.models import create_model
from rcmnet_jax.paper.plan import PlannedRun
from rcmnet_jax.training.state import create_train_state
from rcmnet_jax.training.steps import StepConfig, train_step

STEPS = 3
# A run's time besides its steps: opening data, compiling, scoring, writing; 15 to 30 s measured.
OVERHEAD_SECONDS = 25.0


def seconds_per_image(run: PlannedRun) -> float:
    """Seconds per image of a training step, after compilation."""
    config = run.config
    model = create_model(num_classes=8, **config.model.to_dict())
    shape = (config.train.batch_size, config.data.height, config.data.width, 3)
    state = create_train_state(jax.random.key(0), model, optax.sgd(1e-4), shape)
    step_config = StepConfig(augmentation=Augmentation("dihedral"))
    batch = {
        "image": jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)),
        "label": jnp.zeros(shape[0], jnp.int32),
    }
    step = jax.jit(functools.partial(train_step, config=step_config))
    key = jax.random.key(0)
    state, metrics = step(state, batch, key)
    jax.block_until_ready(metrics)
    start = time.perf_counter()
    for _ in range(STEPS):
        state, metrics = step(state, batch, key)
    jax.block_until_ready(metrics)
    return (time.perf_counter() - start) / STEPS / shape[0]


def estimate_seconds(
    runs: Sequence[PlannedRun], images: dict[str, int], speeds: dict[str, float]
) -> dict[int, float]:
    """Seconds of each run.

    Args:
      runs: the plan.
      images: training examples of an epoch, views included, for ``pbc`` and ``cart``.
      speeds: seconds per image by model.

    Returns:
      By the run's position in the plan.
    """
    seconds = {}
    for number, run in enumerate(runs):
        count = images["pbc" if run.stage == "pbc" else "cart"]
        # Frozen, the backbone runs forward once, at about a third of a step.
        passes = 1 / 3 if run.stage == "transfer" else run.config.train.epochs
        seconds[number] = OVERHEAD_SECONDS + passes * count * speeds[run.model]
    return seconds


def format_duration(seconds: float) -> str:
    """A rounded time: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
