"""Where the time of a training step goes, by kind of operation and by operation.

    python -m benchmarks.profile_step --model rcmnet --size 64 --batch 64
    python -m benchmarks.profile_step --size 363 --batch 128 --dtype bfloat16      # on a GPU

Milliseconds a step, from a trace of a few steps; the parts of the network are read from the names
that the compiler keeps. On CPU they are summed over the threads that computed: on one core
(``taskset -c 0``) the sums are wall time. On a GPU they are those of its kernels.
"""

import argparse
import collections
import re
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.cases import SIZES, Case
from rcmnet_jax.runtime import configure_runtime, use_huge_pages

STEPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="rcmnet")
    parser.add_argument("--size", type=int, choices=SIZES, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--top", type=int, default=30)
    args = parser.parse_args()
    use_huge_pages()
    configure_runtime()
    import jax

    from benchmarks.jax_side import Subject

    with tempfile.TemporaryDirectory() as folder:
        case = Case(args.model, args.size, args.batch, args.dtype)
        subject = Subject(case, str(Path(folder, "weights.npz")), True)
        subject.run("train")
        text = subject.compiled_text()
        # One call is many steps on an accelerator.
        calls = -(-STEPS // subject.repeats)
        for _ in range(calls):
            subject.run("train")
        wall = statistics.median(_timed(subject) for _ in range(2 * calls)) / subject.repeats
        with jax.profiler.trace(folder):
            for _ in range(calls):
                subject.run("train")
        trace = next(Path(folder).rglob("*.xplane.pb"))
        data = jax.profiler.ProfileData.from_file(str(trace))
        times = _times(data, calls * subject.repeats)
    origin = {
        name: (shape, op)
        for name, shape, op in re.findall(
            r'%([\w.\-]+) = (\S+) [^\n]*?metadata=\{[^\n}]*?op_name="([^"]*)"', text
        )
    }
    total = sum(times.values())
    print(f"{args.model} {args.size}, batch {args.batch}: {wall:.0f} ms a step by the clock")
    print(f"{total:.1f} ms a step in operations")
    kinds: collections.Counter = collections.Counter()
    for name, ms in times.items():
        kinds[_kind(origin.get(name, ("", name))[1])] += ms
    for kind, ms in kinds.most_common(25):
        print(f"{ms:9.1f} ms  {100 * ms / total:5.1f} %  {kind}")
    shapes = dict(re.findall(r"%([\w.\-]+) = (\S+) ", text))
    print()
    for name, ms in sorted(times.items(), key=lambda item: -item[1])[: args.top]:
        op = origin.get(name, ("", ""))[1]
        shape = shapes.get(name, "")
        print(f"{ms:9.2f} ms  {name}  {shape}  {op[-110:]}")


def _timed(subject) -> float:
    start = time.perf_counter()
    subject.run("train")
    return 1e3 * (time.perf_counter() - start)


def _times(data, steps: int) -> dict[str, float]:
    """Operation -> milliseconds a step: its quickest run times how often a step runs it.

    The quickest, because on a busy machine the others contain waiting for the processor.
    """
    runs: dict[str, list[float]] = collections.defaultdict(list)
    on_gpu = any("GPU" in plane.name for plane in data.planes)
    for plane in data.planes:
        for line in plane.lines:
            if on_gpu and not ("GPU" in plane.name and "Stream" in line.name):
                continue
            for event in line.events:
                names = dict(event.stats)
                if "hlo_op" in names:
                    # Within a command buffer a kernel goes by its own name.
                    in_buffer = names["hlo_op"].startswith("command_buffer")
                    name = event.name if in_buffer else names["hlo_op"]
                    runs[name].append(event.duration_ns / 1e6)
    return {name: min(times) * len(times) / steps for name, times in runs.items()}


def _kind(op: str) -> str:
    """Direction, part and primitive of an operation's name."""
    direction = "backward" if "transpose(" in op else "forward"
    part = next(
        (p for p in ("cbam", "bot", "norm", "conv", "head", "max_pool", "pool") if p in op), "other"
    )
    return f"{direction:8} {part:8} {op.rsplit('/', 1)[-1]}"


if __name__ == "__main__":
    main()
