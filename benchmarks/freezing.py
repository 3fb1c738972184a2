"""What a training step costs by how much of the network is frozen, and on cached features.

    python benchmarks/freezing.py                      # RCMNet, 64x64, batch 32
    python benchmarks/freezing.py --model resnet18 --size 128 --rounds 10

Six patterns, from everything to the classifier alone, then the classifier on features computed
once. Steps are timed in turns, so that a busy machine slows all of them; the median counts. An
epoch is that of the stand-in for the CAR-T set: 360 images in six views.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.models import MODELS, create_model
from rcmnet_jax.training.state import create_train_state
from rcmnet_jax.training.steps import Recipe, train_steps_on_device
from rcmnet_jax.transfer import trainable_paths

IMAGES, VIEWS = 360, 6
PARTS = ("stem", "stage1", "stage2", "stage3", "stage4", "bot", "head")


def patterns_of(params) -> dict[str, tuple[str, ...]]:
    """Name -> what trains; the ResNet family only."""
    parts = [part for part in PARTS if part in params]
    return {
        "everything": (".*",),
        **{
            f"from {parts[start]} on": tuple(f"{part}/.*" for part in parts[start:])
            for start in (2, 3, 4, 5)
            if parts[start] != "head"
        },
        "classifier": ("head/.*",),
    }


def compiled_step(model, params, patterns, shape):
    """A state and the compiled steps, for one pattern of freezing."""
    trainable = trainable_paths(params, patterns)
    everything = len(trainable) == len(jax.tree.leaves(params))
    recipe = Recipe(
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        augmentation=Augmentation("paper"),
        trainable=None if everything else trainable,
        frozen_norm=not everything,
    )
    tx = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(1e-4, momentum=0.9))
    state = create_train_state(jax.random.key(0), model, tx, shape, trainable=recipe.trainable)
    step = jax.jit(functools.partial(train_steps_on_device, recipe=recipe), donate_argnums=0)
    return state, step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="rcmnet", choices=sorted(MODELS.keys() - {"vgg19", "alexnet"})
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    shape = (1, args.size, args.size, 3)
    model = create_model(args.model, num_classes=2)
    variables = model.init(jax.random.key(0), jnp.zeros(shape), train=False)
    rng = np.random.default_rng(0)
    pixels = {
        "image": jnp.asarray(rng.integers(0, 256, (IMAGES, *shape[1:]), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, 2, IMAGES).astype(np.int32)),
    }
    width = jax.eval_shape(
        lambda: model.apply(variables, jnp.zeros(shape), train=False, method="features")
    ).shape[-1]
    cached = {
        "features": jnp.asarray(rng.random((IMAGES, VIEWS, 1, 1, width), dtype=np.float32)),
        "label": pixels["label"],
    }
    steps_per_epoch = IMAGES * VIEWS // args.batch
    runs = {}
    for name, patterns in patterns_of(variables["params"]).items():
        runs[name] = (*compiled_step(model, variables["params"], patterns, shape), pixels, 1)
    runs["classifier, on features"] = (
        *compiled_step(model, variables["params"], ("head/.*",), shape),
        cached,
        steps_per_epoch,
    )
    times: dict[str, list[float]] = {name: [] for name in runs}
    states = {name: run[0] for name, run in runs.items()}
    key = jax.random.key(1)
    # The first round compiles.
    for round_number in range(args.rounds + 1):
        for name, (_, step, split, count) in runs.items():
            index = rng.integers(0, IMAGES, (count, args.batch)).astype(np.int32)
            view = rng.integers(0, VIEWS, (count, args.batch)).astype(np.int32)
            start = time.perf_counter()
            states[name], metrics = step(states[name], split, index, view, key)
            jax.block_until_ready(metrics)
            if round_number:
                times[name].append((time.perf_counter() - start) / count)
    print(
        f"{args.model}, {args.size}x{args.size}, batch {args.batch}, jax {jax.__version__},"
        f" {jax.devices()[0].device_kind} x {jax.device_count()}, median of {args.rounds}"
    )
    print(
        f"{'what trains':<26}{'parameters':>12}{'ms a step':>11}{'s an epoch':>12}{'faster by':>14}"
    )
    slowest = statistics.median(times["everything"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        trains = jax.tree.leaves(states[name].opt_state)
        number = sum(leaf.size for leaf in trains if leaf.ndim)
        print(
            f"{name:<26}{number:>12,}{1e3 * median:>11.2f}{median * steps_per_epoch:>12.3f}"
            f"{slowest / median:>14.1f}"
        )


if __name__ == "__main__":
    main()
