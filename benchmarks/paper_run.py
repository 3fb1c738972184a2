"""The paper's 30 epochs on the balanced PBC set, timed on this machine's devices.

The set lies on the device as uint8, each call of the compiled loop is many steps, and the clock
starts when everything is compiled. With random images of the same number and size: what is timed
does not look at them. Validation, checkpoints and logs are not in the time; the training steps are.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import CLASSES, Case
from benchmarks.jax_side import CONFIG, INPUTS, Subject
from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.data.order import BatchOrder
from rcmnet_jax.hosts.mesh import put_batch, put_replicated
from rcmnet_jax.training.steps import compile_step

# Eight classes of 971, cut to the smallest, of which a tenth validates.
TRAIN_IMAGES, EPOCHS, GOAL_S = 8 * 874, 30, 90.0
# Steps in one call; an epoch of 54 steps of 128 images is one.
LONGEST_DISPATCH = 64


@dataclasses.dataclass(frozen=True)
class PaperRun:
    """What the run took.

    Attributes:
      device: on which.
      compile_s: the first call.
      train_s: all epochs after it.
      images_per_second: of the whole run.
      flops_per_image: forward and backward.
    """

    device: str
    compile_s: float
    train_s: float
    images_per_second: float
    flops_per_image: float


def paper_run(
    *,
    size: int,
    batch: int,
    dtype: str,
    weights: str,
    images: int = TRAIN_IMAGES,
    epochs: int = EPOCHS,
) -> PaperRun:
    """Trains RCMNet on as many random images as the balanced set has, and times it.

    Args:
      size: a key of `benchmarks.cases.SIZES`.
      batch: over all devices.
      dtype: compute type.
      images: in the train split.
      epochs: timed ones, after one call that compiles.
      weights: where the random weights are written.
    """
    case = Case("rcmnet", size, batch, dtype)
    subject = Subject(case, weights, True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, images).astype(np.int32)
    pixels = rng.integers(0, 256, (images, *case.shape[1:]), dtype=np.uint8)
    order = BatchOrder(labels, batch_size=batch, seed=0)
    config = dataclasses.replace(CONFIG, augmentation=Augmentation("dihedral"))
    state, mesh = subject.train_state(config), subject.mesh
    split = put_replicated({"image": pixels, "label": labels}, mesh)
    key = put_replicated(jax.random.key(0), mesh)
    # Equal dispatches that cover an epoch without a rest, so that one compilation serves all.
    most = LONGEST_DISPATCH if jax.default_backend() != "cpu" else 1
    chunk = max(n for n in range(1, most + 1) if order.steps_per_epoch % n == 0)
    step = compile_step(config, mesh, on_device=True)
    count, inputs = put_replicated((np.asarray(chunk, np.int32), INPUTS), mesh)

    def dispatch(state, start):
        rows = put_batch(order.batches(start, chunk), mesh, axis=1)
        return step(state, split, *rows, count, key, inputs)

    start = time.perf_counter()
    state, metrics = jax.block_until_ready(dispatch(state, 0))
    compile_s = time.perf_counter() - start
    start = time.perf_counter()
    for position in range(0, epochs * order.steps_per_epoch, chunk):
        state, metrics = dispatch(state, position)
    loss = float(jnp.mean(jax.block_until_ready(metrics)["loss"]))
    train_s = time.perf_counter() - start
    assert np.isfinite(loss), "the loss is not finite"
    return PaperRun(
        device=subject.device,
        compile_s=compile_s,
        train_s=train_s,
        images_per_second=epochs * order.steps_per_epoch * batch / train_s,
        flops_per_image=3 * subject.flops(),
    )
