"""What a rule of `models/conv.py` or `models/winograd.py` is worth: a network with and without.

    python benchmarks/rule.py --without SMALL_MAP_PIXELS=0 --model resnet18 --size 64
    python benchmarks/rule.py --without WINOGRAD_CHANNELS=9999 --model rcmnet --size 96
    python benchmarks/rule.py --without TURNED_CHANNELS=0 --model resnet18 --size 128

Both are compiled in one process, checked against each other, and called alternately: images a
second of the forward pass and of the gradients of a training step, median with quartiles, by the
clock and by CPU time.
"""

import argparse
import time

import numpy as np

from rcmnet_jax.runtime import configure_runtime, use_huge_pages

CLASSES = 8
CALLS = 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--without", required=True, metavar="CONSTANT=VALUE")
    parser.add_argument("--model", default="rcmnet")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=16)
    args = parser.parse_args()
    use_huge_pages()
    configure_runtime()
    from rcmnet_jax.models import conv, winograd

    constant, value = args.without.split("=")
    module = next((m for m in (conv, winograd) if hasattr(m, constant)), None)
    if module is None:
        parser.error(f"neither models/conv.py nor models/winograd.py has {constant}")
    if not isinstance(getattr(module, constant), int | float):
        parser.error(f"{constant} is not a number")
    settings = {"with": getattr(module, constant), "without": float(value)}
    tasks = {}
    for name, setting in settings.items():
        # Read while a network is traced, which the first call does.
        setattr(module, constant, setting)
        for task, call in compiled_tasks(args).items():
            tasks[task, name] = call, call()
    for task in ("forward", "train"):
        print(f"{task}: largest relative difference {difference(tasks, task):.1e}")
    rates = measure({key: call for key, (call, _) in tasks.items()}, args.batch, args.rounds)
    for (task, name), by in rates.items():
        shown = ", ".join(f"{clock} {quartiles(found)}" for clock, found in by.items())
        print(f"{args.model} {args.size} {task:8} {name:8} {shown}")


def compiled_tasks(args) -> dict:
    """Calls without arguments that return when their arrays are there."""
    import jax
    import jax.numpy as jnp
    import optax

    from rcmnet_jax.models import create_model

    rng = np.random.default_rng(0)
    model = create_model(args.model, CLASSES)
    x = jax.device_put(rng.random((args.batch, args.size, args.size, 3), np.float32))
    labels = jax.device_put(rng.integers(CLASSES, size=args.batch))
    variables = jax.jit(lambda key: model.init(key, x[:1], train=False))(jax.random.key(0))

    def loss(params, rest):
        logits, _ = model.apply(
            {"params": params, **rest},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    # Traced now and never again: what JAX keeps of a rule's function is from the setting before.
    jax.clear_caches()
    forward = jax.jit(lambda v: model.apply(v, x, train=False)).lower(variables).compile()
    gradients = jax.jit(jax.grad(loss)).lower(variables["params"], rest).compile()
    return {
        "forward": lambda: jax.block_until_ready(forward(variables)),
        "train": lambda: jax.block_until_ready(gradients(variables["params"], rest)),
    }


def difference(tasks: dict, task: str) -> float:
    """Between both forms' arrays, over the largest value."""
    import jax

    ours, other = (jax.tree.leaves(tasks[task, name][1]) for name in ("with", "without"))
    largest = max(float(abs(leaf).max()) for leaf in other)
    pairs = zip(ours, other, strict=True)
    return max(float(abs(a - b).max()) for a, b in pairs) / largest


def measure(calls: dict, batch: int, rounds: int) -> dict:
    """Images a second of each call, by clock, one entry a round."""
    rates: dict = {key: {"clock": [], "CPU": []} for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            clock, cpu = time.perf_counter(), time.process_time()
            for _ in range(CALLS):
                call()
            rates[key]["clock"].append(CALLS * batch / (time.perf_counter() - clock))
            rates[key]["CPU"].append(CALLS * batch / (time.process_time() - cpu))
    return rates


def quartiles(rates: list[float]) -> str:
    """Median (first to third quartile)."""
    low, middle, high = np.quantile(rates, [0.25, 0.5, 0.75])
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
