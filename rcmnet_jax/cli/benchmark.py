"""Measure this library against PyTorch on this machine, in turns, or time the paper's run.

The code is in benchmarks/ of a checkout. PyTorch may live in another interpreter: --torch-python.
Outputs of both sides are compared before anything is timed.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

import rcmnet_jax
from rcmnet_jax.cli.arguments import user_path, user_path_text
from rcmnet_jax.cli.exit_codes import OK
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import require_folder
from rcmnet_jax.models.registry import MODELS

EXAMPLES = """\
examples:
  rcmnet benchmark --torch-python /path/to/python --sizes 64 28
  rcmnet benchmark --models rcmnet resnet18 --tasks forward train epoch grad_cam --startup --input
  rcmnet benchmark --dtype bfloat16 --models rcmnet --sizes 363 --batches 128 256 --no-eager  # GPU
  rcmnet benchmark --gpu-paper-run --dtype bfloat16                        # 30 epochs, timed
  rcmnet benchmark --gpu-paper-run --tiny --sizes 64                       # the same, to try it
"""
# Without importing benchmarks/, so that --help works outside a checkout.
SIZES = (363, 128, 64, 28)
TASKS = ("forward", "train", "epoch", "grad_cam", "frozen_step", "frozen_run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=["rcmnet", "resnet18"])
    add("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES), help="pixels")
    add("--tasks", nargs="*", choices=TASKS, default=["forward", "train"])
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--batches", nargs="+", type=int, default=[], help="try these; each side's best counts")
    add(
        "--torch-python",
        type=user_path_text,
        help="interpreter that has torch; by default this one",
    )
    add("--no-torch", action="store_true", help="measure our side alone")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    add("--no-eager", action="store_true", help="leave PyTorch without torch.compile out")
    add("--rounds", type=int, default=5, help="turns of each side")
    add("--seconds", type=float, default=1.0, help="length of a turn, at least one call")
    add("--cores", type=int, default=0, help="CPU cores of each side; 0: all")
    add("--startup", action="store_true", help="measure imports and first steps too")
    add("--input", action="store_true", help="measure the input path too")
    add("--images", type=int, default=256, help="of the input path")
    add("--gpu-paper-run", action="store_true", help="time the paper's 30 epochs instead")
    add("--tiny", action="store_true", help="with --gpu-paper-run: a minute on a CPU")
    add("--peak-tflops", type=float, help="of the device, for the utilisation")
    add("--out", type=user_path, default=Path("benchmark"), help="folder of the report")


def run(args: argparse.Namespace) -> int:
    """Measures and writes."""
    main = _benchmarks()
    for name in ("rounds", "images"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.cores < 0 or args.seconds < 0 or min(args.batches, default=1) < 1:
        raise UserError("--cores and --seconds must not be negative, --batches at least 1")
    require_folder(args.out)
    if args.gpu_paper_run:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / "paper_run.json"
        path.write_text(json.dumps(main.paper(args), indent=1) + "\n")
        print(f"written to {path}")
        return OK
    args.torch_python = None if args.no_torch else _torch_python(args.torch_python)
    try:
        content = main.compare(args)
    except importlib.import_module("benchmarks.turns").SideError as error:
        raise UserError(f"{error}: see {args.out / 'sides.log'}") from error
    for row in content["rows"]:
        if "ratio" in row:
            print(f"{row['model']} {row['size']} {row['task']}: {row['ratio']:.2f} of PyTorch")
    print(f"written to {args.out}: benchmark.json, benchmark.md")
    return OK


def _benchmarks():
    """The module `benchmarks.compare` of the checkout."""
    for root in (Path(rcmnet_jax.__file__).parents[1], Path.cwd()):
        if (root / "benchmarks" / "turns.py").is_file():
            sys.path.insert(0, str(root))
            return importlib.import_module("benchmarks.compare")
    raise UserError("benchmarks/ is not here: run this command in a checkout of rcmnet-jax")


def _torch_python(given: str | None) -> str:
    turns = importlib.import_module("benchmarks.turns")
    python = given or sys.executable
    if not turns.has_torch(python):
        raise UserError(
            f"{python} has no torch: name an interpreter that has with --torch-python, or measure"
            " ours alone with --no-torch"
        )
    return python
