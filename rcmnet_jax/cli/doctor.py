"""Look at this machine: versions, devices, why CUDA does or does not work, memory, caches.

Computes a convolution for about a second and compares it with numpy. The exit status is 0 where
training and prediction will work, whatever they will run on, and 2 where they will not.
"""

import argparse

from rcmnet_jax.cli.exit_codes import OK, USER_ERROR

EXAMPLES = """\
examples:
  rcmnet doctor
  rcmnet doctor --json > doctor.json      to send along with a question
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--require-gpu", action="store_true", help="exit status 2 without one")


def run(args: argparse.Namespace) -> int:
    """Examines and prints."""
    import json

    from rcmnet_jax.cli.machine import examine, table

    findings = examine()
    print(json.dumps(findings, indent=2) if args.json else table(findings))
    works = findings["convolution"]["ok"] and not findings["missing"]
    if args.require_gpu and findings["jax"].get("backend") != "gpu":
        works = False
    return OK if works else USER_ERROR
