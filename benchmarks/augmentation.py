"""What the augmentation presets cost a training step, all steps in turns in one process.

    python -m benchmarks.augmentation --size 64 --batch 64

CPU time is what counts on a machine with other work: it hardly depends on who waits for whom.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.plan import SIZES, Case
from rcmnet_jax.runtime import configure_runtime, use_huge_pages

PRESETS = ("none", "mild", "strong")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="rcmnet")
    parser.add_argument("--size", type=int, choices=SIZES, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    use_huge_pages()
    configure_runtime()
    import jax

    from benchmarks.jax_side import RECIPE, Subject
    from rcmnet_jax.data.augment_settings import PRESETS as SETTINGS

    with tempfile.TemporaryDirectory() as folder:
        case = Case(args.model, args.size, args.batch)
        subject = Subject(case, str(Path(folder, "weights.npz")), True)
    steps = {
        name: subject.train_call(dataclasses.replace(RECIPE, augmentation=SETTINGS[name]))
        for name in PRESETS
    }
    for step in steps.values():
        jax.block_until_ready(step())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            wall, busy = time.perf_counter(), time.process_time()
            jax.block_until_ready(step())
            times[name].append((time.perf_counter() - wall, time.process_time() - busy))
    print(f"{case.name}, {subject.device}: milliseconds a step, median (least)")
    base = None
    for name, measured in times.items():
        wall, busy = (
            [1e3 * t / subject.repeats for t in column] for column in zip(*measured, strict=True)
        )
        median = statistics.median(busy)
        base = base or median
        print(
            f"{name:7} wall {statistics.median(wall):7.1f} ({min(wall):.1f}),"
            f" CPU {median:7.1f} ({min(busy):.1f}), {100 * (median / base - 1):+.1f} % CPU"
        )


if __name__ == "__main__":
    main()
