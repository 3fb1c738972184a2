"""What `rcmnet benchmark` runs, from its arguments to the written report."""

import argparse
import dataclasses
import datetime
import functools
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import cases, results_table, turns
from benchmarks.startup import measure_startup
from rcmnet_jax.errors import UserError


def compare(args: argparse.Namespace) -> dict:
    """Ours against PyTorch, in turns; start-up and input path where asked for.

    Args:
      args: as `rcmnet_jax.cli.benchmark.add_arguments` defines them.

    Returns:
      The report, which is also written.

    Raises:
      UserError: no network takes any of the sizes, and nothing else is asked for.
    """
    pythons = {cases.OURS: turns.this_python()}
    names = cases.sides(
        torch=args.torch_python is not None,
        eager=not args.no_eager,
        compiled=not args.no_compile,
    )
    pythons |= {name: args.torch_python for name in names if name != cases.OURS}
    todo = cases.cases_of(
        args.models, args.sizes, dtype=args.dtype, batches=args.batches, gpu=_has_gpu()
    )
    left_out = cases.left_out(args.models, args.sizes)
    if not (todo or args.startup or args.input):
        raise UserError(f"nothing to measure: {'; '.join(left_out)}")
    for what in left_out:
        print(f"left out: {what}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "sides.log"
    content: dict = {
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
        "command": "rcmnet " + " ".join(sys.argv[1:]),
        "load": os.getloadavg()[0],
        "rounds": args.rounds,
        "cores": args.cores,
        "sides": {},
        "results": [],
        "rows": [],
        "left_out": left_out,
    }
    for case in todo:
        print(f"{case.name}: {', '.join(args.tasks)}", flush=True)
        result = turns.measure_case(
            case,
            args.tasks,
            pythons,
            rounds=args.rounds,
            seconds=args.seconds,
            cores=args.cores,
            log=log,
            tell=functools.partial(print, flush=True),
        )
        content["results"].append(result)
        for side, described in result["sides"].items():
            content["sides"].setdefault(side, described)
        device = result["sides"][cases.OURS]["device"]
        peak = args.peak_tflops or results_table.peak_of(device, args.dtype)
        content["rows"] = results_table.rows_of(content["results"], peak)
        # After every case, so that an interrupted run keeps what it has.
        results_table.write(content, args.out)
    if args.startup:
        print("start-up", flush=True)
        content["startup"] = measure_startup(pythons, min(args.sizes, key=_from_64), log)
    if args.input:
        from benchmarks.input_path import measure_input

        print("input path", flush=True)
        content["input"] = measure_input(max(args.sizes), args.images)
    results_table.write(content, args.out)
    return content


def paper(args: argparse.Namespace) -> dict:
    """The paper's run, timed; see `benchmarks.paper_run`."""
    from benchmarks.paper_run import EPOCHS, GOAL_S, TRAIN_IMAGES, paper_run

    size, images, epochs = max(args.sizes), TRAIN_IMAGES, EPOCHS
    batch = args.batches[0] if args.batches else 128
    if args.tiny:
        size, images, epochs, batch = min(args.sizes), 64, 2, 16
    with tempfile.TemporaryDirectory() as folder:
        done = paper_run(
            size=size,
            batch=batch,
            dtype=args.dtype,
            images=images,
            epochs=epochs,
            weights=f"{folder}/weights.npz",
        )
    content = {**dataclasses.asdict(done), "size": size, "batch": batch, "images": images}
    content |= {"epochs": epochs, "dtype": args.dtype, "tiny": args.tiny}
    peak = args.peak_tflops or results_table.peak_of(done.device, args.dtype)
    print(f"{done.device}: {epochs} epochs of {images} images in {done.train_s:.1f} s")
    print(f"compiled in {done.compile_s:.1f} s; {done.images_per_second:.1f} images/s")
    if peak:
        achieved = done.flops_per_image * done.images_per_second / (1e12 * peak)
        content["utilisation"] = achieved
        print(f"model FLOP utilisation {100 * achieved:.1f} % of {peak:.0f} TFLOP/s")
    if not args.tiny:
        reached = "reached" if done.train_s < GOAL_S else "missed"
        print(f"the bar of {GOAL_S:.0f} s on one H100 is {reached}")
    return content


def _has_gpu() -> bool:
    """Without starting a GPU in this process, whose memory the sides need."""
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/nvidiactl"))


def _from_64(size: int) -> int:
    return abs(size - 64)
