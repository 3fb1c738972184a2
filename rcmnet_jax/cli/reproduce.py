"""Reproduce every table and figure of the paper from images, beside the published numbers."""

import argparse

from rcmnet_jax.cli.arguments import user_path, user_path_text
from rcmnet_jax.cli.exit_codes import INTERRUPTED, OK, PARTIAL
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import require_folder

EXAMPLES = """\
examples:
  rcmnet reproduce --quick --models resnet18,rcmnet --out demo/paper
  rcmnet reproduce --pbc PBC_dataset_normal_DIB --cart CART_FOLDER --out reproduction --seeds 3
  rcmnet reproduce --pbc PBC_dataset_normal_DIB --out small --size 96 --models rcmnet --dry-run
  rcmnet reproduce --pbc PBC_dataset_normal_DIB --out reproduction --hours 8
  rcmnet reproduce --status --out reproduction

The same command continues where it was stopped; finished runs are not trained again. Exit status 1:
some runs failed. Runs left by --hours are no failure.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "--pbc", type=user_path_text, help="the eight-class PBC images: folder, zip or manifest"
    )
    parser.add_argument(
        "--cart",
        type=user_path_text,
        help="the two-class images; without them Tables 6 and 7 are left out",
    )
    parser.add_argument("--out", type=user_path, required=True, help="folder for runs and report")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each network (default 1)")
    parser.add_argument("--size", default="native", help="pixels a side, or native (default)")
    parser.add_argument("--models", default="all", help="all, or names with commas between")
    parser.add_argument(
        "--protocol",
        choices=("strict", "paper", "both"),
        default="strict",
        help="strict: validation held out, test scored once; paper: as published, test watched",
    )
    parser.add_argument("--quick", action="store_true", help="synthetic cells, small, in minutes")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and its time only")
    parser.add_argument(
        "--no-estimate",
        dest="estimate",
        action="store_false",
        help="do not measure speeds first; with --dry-run no image is opened",
    )
    parser.add_argument(
        "--hours",
        type=float,
        help="start no run that would end later by its estimate, and list the runs left",
    )
    parser.add_argument(
        "--status",
        action="store_true",
        help="show the state of every run in --out, also while they run, and do nothing else",
    )
    parser.add_argument("--data-dir", type=user_path_text, help="where built data sets are kept")


def run(args: argparse.Namespace) -> int:
    """Trains what is missing and writes the report, or shows the state of the runs."""
    if args.status:
        from rcmnet_jax.paper.status import status_lines

        print("\n".join(status_lines(args.out)))
        return OK
    size = _size(args.size)
    require_folder(args.out)
    from rcmnet_jax.paper import ReproductionSettings, reproduce
    from rcmnet_jax.paper.published import NETWORKS
    from rcmnet_jax.training.loop import Interrupted

    settings = ReproductionSettings(
        out=args.out.absolute(),
        pbc=args.pbc,
        cart=args.cart,
        models=tuple(NETWORKS) if args.models == "all" else tuple(args.models.split(",")),
        seeds=args.seeds,
        protocols=("strict", "paper") if args.protocol == "both" else (args.protocol,),
        size=size,
        quick=args.quick,
        data_dir=args.data_dir,
        dry_run=args.dry_run,
        estimate=args.estimate,
        hours=args.hours,
    )
    try:
        outcome = reproduce(settings)
    except Interrupted as interrupted:
        print(interrupted)
        return INTERRUPTED
    if not args.dry_run:
        print(f"report: {args.out / 'report.html'} (and report.md, tables/, figures/)")
    for line in outcome.failed:
        print(f"failed: {line}")
    for title in outcome.left:
        print(f"left for another call: {title}")
    return PARTIAL if outcome.failed else OK


def _size(text: str) -> int:
    if text == "native":
        return 0
    if not text.isdigit() or int(text) < 16:
        raise UserError(f"--size {text!r} is neither native nor a number of pixels from 16 on")
    return int(text)
