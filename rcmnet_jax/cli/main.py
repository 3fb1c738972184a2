"""The command ``rcmnet``: one module a subcommand, loaded when it is asked for."""

import argparse
import importlib
import io
import sys
from collections.abc import Sequence

import rcmnet_jax
from rcmnet_jax.cli.ending import exit_status
from rcmnet_jax.cli.logs import configure_logging
from rcmnet_jax.runtime import configure_runtime, use_huge_pages

# Subcommand -> (module of rcmnet_jax.cli, what it does). A module has add_arguments(parser),
# EXAMPLES and run(args) -> exit status, and imports nothing heavy outside run.
COMMANDS = {
    "data": ("data", "audit, build, split or draw a data set"),
    "benchmark": ("benchmark", "measure speed against PyTorch on this machine"),
    "evaluate": ("evaluate", "score a trained network, or compare two"),
    "explain": ("explain", "show where trained networks looked, and score it"),
    "reproduce": ("reproduce", "reproduce every table and figure of the paper"),
    "predict": ("predict", "classes, statuses and counts of a folder of images"),
    "doctor": ("doctor", "what this machine has and lacks"),
    "export": ("export", "write a trained network as one file, or for PyTorch, ONNX, StableHLO"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
      argv: arguments without the program's name; of the process when None.

    Returns:
      The exit status, see `rcmnet_jax.cli.exit_codes`.
    """
    return exit_status(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["train"]:
        from rcmnet_jax.cli.train import main as train_main

        return train_main(None if argv is None else words[1:])
    # Class names and files in any script, also where the terminal's encoding lacks the letters.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(words)
    if argv is None:
        use_huge_pages()
    configure_logging()
    configure_runtime()
    return args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rcmnet",
        description="RCMNet for blood-cell images, in JAX.",
    )
    parser.add_argument("--version", action="version", version=rcmnet_jax.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Has flags of its own: see `rcmnet_jax.cli.train`.
    commands.add_parser("train", help="train a network, or go on with a run", add_help=False)
    for name, (module_name, summary) in COMMANDS.items():
        module = importlib.import_module(f"rcmnet_jax.cli.{module_name}")
        subparser = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser
