"""Predict images with a bundle or a run, and count the cells.

Writes a CSV (file, hash, classes, calibrated probabilities, out-of-distribution score, and accept,
review, unlike the training images or not a cell), a summary with the differential count beside it,
and a list of files that could not be read; these make the exit status 1. Stopped and started again
it goes on.
"""

import argparse
import sys

from rcmnet_jax.cli.arguments import user_path
from rcmnet_jax.cli.exit_codes import OK, PARTIAL
from rcmnet_jax.errors import UserError

EXAMPLES = """\
examples:
  rcmnet predict --model model.rcmnet --images tomorrow --out predictions.csv
  rcmnet predict --model checkpoints/pbc_rcmnet --images *.jpg more.zip --out cells.csv

from Python:
  from rcmnet_jax.prediction import open_classifier
  verdicts = open_classifier("model.rcmnet").predict_files(["a.jpg", "b.jpg"])
  print(verdicts.top, verdicts.probabilities.max(axis=1), verdicts.status)
"""
# Bad files named on the terminal; all of them are in the list.
SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "--model", type=user_path, required=True, help="a bundle, or a run's workdir"
    )
    parser.add_argument(
        "--images",
        type=user_path,
        required=True,
        nargs="+",
        help="a folder, images, a zip, or a CSV with a column file; several will do",
    )
    parser.add_argument("--out", type=user_path, required=True, help="the CSV file to write")
    parser.add_argument("--top-k", type=int, default=3, help="classes to name, best first")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--bit-depth",
        type=int,
        help="significant bits of 16-bit files, 12 for a 12-bit camera; as in training by default",
    )
    parser.add_argument("--workers", type=int, help="decoding threads; one for each core")
    parser.add_argument(
        "--roles",
        type=user_path,
        help="a CSV of class,role for the count; roles: white, erythroblast, platelet, none",
    )
    parser.add_argument("--restart", action="store_true", help="take up no earlier rows")


def run(args: argparse.Namespace) -> int:
    """Predicts."""
    for option in ("top_k", "batch_size", "workers"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    for path in args.images:
        if not path.expanduser().exists():
            raise UserError(f"--images {path} does not exist: name a folder of images")
    from rcmnet_jax.prediction import open_classifier, predict_folder
    from rcmnet_jax.prediction.summary import summary_table

    classifier = open_classifier(args.model, batch_size=args.batch_size, bit_depth=args.bit_depth)
    summary = predict_folder(
        classifier,
        args.images,
        args.out,
        roles=args.roles,
        top_k=args.top_k,
        workers=args.workers,
        restart=args.restart,
    )
    print(summary_table(summary))
    print(f"\nwritten to {args.out}, {summary['images_per_second']} images/s")
    if not summary["bad_files"]:
        return OK
    listed = args.out.with_name(f"{args.out.stem}_bad_files.csv")
    for line in listed.read_text(errors="surrogateescape").splitlines()[1 : SHOWN + 1]:
        print(f"  bad: {line}", file=sys.stderr)
    print(f"{summary['bad_files']} files could not be read: {listed}", file=sys.stderr)
    return PARTIAL
