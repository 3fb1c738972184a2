"""The command behind ``train.py``: a config file, a workdir, and one-line errors."""

import argparse
import contextlib
import logging
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from rcmnet_jax.cli.arguments import user_path
from rcmnet_jax.cli.ending import exit_status
from rcmnet_jax.cli.exit_codes import CRASHED, INTERRUPTED, OK, STOPPED, USER_ERROR
from rcmnet_jax.cli.logs import configure_logging
from rcmnet_jax.cli.signals import sigterm_ends
from rcmnet_jax.errors import UserError
from rcmnet_jax.hosts.join import FLAGS, Hosts, join_hosts, lost_message
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
        config, workdir, address = _parse(argv)
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
            return _train(config, workdir, tell=hosts.first)
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


def _train(config, workdir: Path, *, tell: bool) -> int:
    from rcmnet_jax.training.loop import Interrupted, train
    from rcmnet_jax.training.repeats import is_repeated, run_repeats

    try:
        if is_repeated(config):
            summary, print_summary = run_repeats(config, workdir), _print_repeats
        else:
            summary, print_summary = train(config, workdir), _print_run
    except Interrupted as interrupted:
        if tell:
            print(interrupted, file=sys.stderr)
        return INTERRUPTED
    if tell:
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


def _parse(argv: list[str]):
    """The config with its overrides, the workdir, and where the other processes are."""
    from absl import flags

    argv = _find_config_file(argv)
    words = ["train.py", *argv]
    values = _config_flag(words)
    flags.DEFINE_string("workdir", None, "where the run is kept", flag_values=values)
    for flag in FLAGS:
        flags.DEFINE_string(flag, "", "of several processes", flag_values=values)
    try:
        rest = values(words)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(_unknown_key(argv) or _explain(error)) from error
    if len(rest) > 1:
        raise UserError(f"argument {rest[1]!r} is not understood: see python train.py --help")
    if not values.workdir:
        raise UserError("--workdir is missing: name the folder for the run, e.g. checkpoints/mine")
    address = {flag: values[flag].value for flag in FLAGS}
    return _with_home(values.config), _path(values.workdir), address


def _path(text: str) -> Path:
    try:
        return user_path(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(str(error)) from error


def _with_home(config):
    """The config with ``~`` expanded wherever a value begins with it; only paths do."""
    from rcmnet_jax.workdir.config_file import flatten_config

    for key, value in flatten_config(config).items():
        if isinstance(value, str) and value.startswith("~"):
            config.update_from_flattened_dict({key: str(_path(value))})
    return config


def _config_flag(words: list[str]):
    """Flags that know ``--config`` and the overrides among the words."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=words)
    return values


def _find_config_file(argv: list[str]) -> list[str]:
    """The arguments with the config file's path expanded; its checkout becomes importable."""
    for position, word in enumerate(argv):
        name, has_value, value = word.lstrip("-").partition("=")
        if name != "config" or not word.startswith("-"):
            continue
        if not has_value:
            value = argv[position + 1] if position + 1 < len(argv) else ""
        file, *arguments = value.split(":", 1)
        path = _path(file)
        if not path.is_file():
            raise UserError(f"config file {file!r} does not exist: {_where_configs_are()}")
        checkout = path.resolve().parent.parent
        if (checkout / "configs" / "base.py").is_file() and str(checkout) not in sys.path:
            sys.path.insert(0, str(checkout))
        found = f"--config={':'.join([str(path), *arguments])}"
        return [*argv[:position], found, *argv[position + (1 if has_value else 2) :]]
    raise UserError("--config is missing: e.g. --config configs/synthetic.py")


def _where_configs_are() -> str:
    known = ", ".join(str(p) for p in sorted(Path("configs").glob("[!_]*.py")))
    if known:
        return f"choose from {known}"
    return "there is no configs/ here; run this in a checkout of rcmnet-jax, or give the whole path"


def _unknown_key(argv: list[str]) -> str | None:
    """What the config has where an override names a key that it has not; None: they all exist."""
    import ml_collections
    from absl import flags

    is_override = re.compile("--?config[.]").match
    overrides = [word.lstrip("-").partition("=")[0] for word in argv if is_override(word)]
    words = ["train.py", *(word for word in argv if not is_override(word))]
    values = _config_flag(words)
    try:
        values(words, known_only=True)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError):
        # The file itself cannot be read, which is what is to be told.
        return None
    for override in overrides:
        part, (_, *keys) = values.config, override.split(".")
        for depth, key in enumerate(keys):
            where = ".".join(["config", *keys[:depth]])
            if not isinstance(part, ml_collections.ConfigDict):
                return f"there is no key {override}: {where} is a value"
            if key not in part:
                return f"there is no key {override}: {where} has {', '.join(sorted(part))}"
            part = part[key]
    return None


def _explain(error: BaseException) -> str:
    """One line for what a config file says, or absl and ml_collections in several."""
    told: BaseException | None = error
    while told is not None and not (isinstance(told, UserError) and told.__context__ is None):
        # ml_collections raises it again with a traceback as its text, and absl once more.
        told = told.__context__
    if told is not None:
        return str(told)
    text = " ".join(str(error).strip("'\"").split())
    return f"{text}: configs/base.py lists every key" if "config" in text else text
