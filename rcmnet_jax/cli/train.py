"""The command behind ``train.py``: a config file, a workdir, and one-line errors."""

import contextlib
import logging
import sys
import traceback
from pathlib import Path
from typing import Any

from rcmnet_jax.cli.config_flags import parse_flags
from rcmnet_jax.cli.ending import exit_status
from rcmnet_jax.cli.exit_codes import CRASHED, INTERRUPTED, OK, STOPPED, USER_ERROR
from rcmnet_jax.cli.logs import configure_logging
from rcmnet_jax.cli.signals import sigterm_ends
from rcmnet_jax.errors import UserError
from rcmnet_jax.hosts.join import Hosts, join_hosts, lost_message
from rcmnet_jax.runtime import configure_runtime, use_huge_pages

USAGE = """\
usage: python train.py --config FILE[:ARGUMENTS] --workdir DIR [--config.KEY=VALUE ...]
       rcmnet train --config ...    (the same)

Train a network, or go on with a run that was stopped: same command, same folder.

examples:
  python train.py --config configs/synthetic.py --workdir checkpoints/synthetic
  python train.py --config configs/pbc.py:model=rcmnet,size=96 --workdir checkpoints/pbc_rcmnet \\
      --config.data.source=PBC_dataset_normal_DIB
  python train.py --config configs/cells.py --workdir checkpoints/mine \\
      --config.data.source=FOLDER --config.optim.learning_rate=0.02

Each file in configs/ says what it takes behind the colon; configs/base.py lists every key.
Several processes (docs/scaling.md): --coordinator HOST:PORT --num_processes N --process_id I, or
RCMNET_COORDINATOR, RCMNET_NUM_PROCESSES, RCMNET_PROCESS_ID; under srun none of them is needed.

Exit status: 0 done, 2 something to mend (one line says what), 75 to be run again: stopped by
SIGTERM and saved, or another process of the run is gone.
"""


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and trains.

    Args:
      argv: the arguments, without the program's name; of the process when None.

    Returns:
      The exit status.
    """
    return exit_status(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    if argv is None:
        use_huge_pages()
        argv = sys.argv[1:]
        # Of `rcmnet train`.
        argv = argv[1:] if argv[:1] == ["train"] else argv
    if {"-h", "--help", "-help"} & set(argv) or not argv:
        print(USAGE)
        return OK if argv else USER_ERROR
    configure_logging()
    configure_runtime()
    with sigterm_ends():
        config, workdir, address = parse_flags(argv)
    # Outside: in a run of several processes JAX installs a handler here, which must stay.
    hosts = join_hosts(address)
    if not hosts.first:
        logging.getLogger("rcmnet_jax").setLevel(logging.WARNING)
    return _run(hosts, config, workdir)


def _run(hosts: Hosts, config, workdir: Path) -> int:
    """Trains, reports how that ended, and returns the exit status."""
    try:
        # The training loop has a handler of its own, which saves.
        with sigterm_ends() if hosts.count == 1 else contextlib.nullcontext():
            return _train(config, workdir, first=hosts.first)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last saved checkpoint", file=sys.stderr)
        status = STOPPED
    except BaseException as error:
        if hosts.lost_another(error):
            print(f"error: {lost_message(hosts.count)}", file=sys.stderr)
            status = INTERRUPTED
        elif hosts.count == 1:
            raise
        elif isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
            status = USER_ERROR
        else:
            traceback.print_exc()
            status = CRASHED
    hosts.end_after_error(status)
    return status


def _train(config, workdir: Path, *, first: bool) -> int:
    from rcmnet_jax.training.loop import Interrupted, train
    from rcmnet_jax.training.repeats import is_repeated, run_repeats

    try:
        if is_repeated(config):
            summary, print_summary = run_repeats(config, workdir), _print_repeats
        else:
            summary, print_summary = train(config, workdir), _print_run
    except Interrupted as interrupted:
        if first:
            print(interrupted, file=sys.stderr)
        return INTERRUPTED
    if first:
        print_summary(summary, workdir)
    return OK


def _print_repeats(summary: dict[str, Any], workdir: Path) -> None:
    from rcmnet_jax.evaluation.seeds import SeedSummary

    for seed, scores in summary["seeds"].items():
        print(f"seed {seed}: {_top1(scores['accuracy'])}")
    for name in ("accuracy", "balanced_accuracy"):
        print(f"{name.replace('_', ' ')}: {SeedSummary.from_dict(summary[name]).text()}")
    print(f"in {workdir}: summary.json, and of each seed test_metrics.json, test_predictions.csv")


def _print_run(summary: dict[str, Any], workdir: Path) -> None:
    best = summary["best"]
    print(f"best epoch {best['epoch']} by {best['metric']}: {_number(best['value'])}")
    if "test" in summary:
        print(f"test {_top1(summary['test']['accuracy'])}")
    print(f"in {workdir}: curves.png, test_confusion.png, test_metrics.json, checkpoints/")


def _top1(accuracy: dict[str, Any]) -> str:
    return (
        f"top-1 {accuracy['k']}/{accuracy['n']} = {100 * accuracy['value']:.2f} %"
        f" (95 % interval {100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f})"
    )


def _number(value: float | None) -> str:
    return "not measured (no validation part)" if value is None else f"{value:.4f}"
