"""Score a trained network on its own test part or on other images, or compare two runs."""

import argparse
import shlex
import sys
from pathlib import Path

from rcmnet_jax.cli.exit_codes import OK
from rcmnet_jax.errors import UserError

EXAMPLES = """\
examples:
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet --report --against checkpoints/pbc_resnet18
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet --data OTHER_FOLDER --out other_lab
  rcmnet evaluate --compare checkpoints/pbc_resnet18 checkpoints/pbc_rcmnet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", type=Path, help="a run of train.py")
    what.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        type=Path,
        help="two runs, or two predictions CSVs, of the same test images",
    )
    parser.add_argument(
        "--data", help="other images to score, all of them: folder, zip or manifest"
    )
    parser.add_argument("--source", help="where the run's own images are now, if they moved")
    parser.add_argument("--part", choices=("test", "val", "train"), default="test")
    parser.add_argument("--out", type=Path, help="where to write; the workdir by default")
    parser.add_argument("--data-dir", help="where built data sets are kept")
    parser.add_argument("--batch-size", type=int, default=64)
    report = parser.add_argument_group("report", "one page that stands by itself, and its JSON")
    report.add_argument("--report", action="store_true", help="also write <part>_report.html")
    report.add_argument(
        "--review-budget", type=float, default=0.05, help="share of images people can look at"
    )
    report.add_argument("--against", type=Path, help="a run to compare with, on the same images")
    report.add_argument(
        "--seeds", nargs="+", type=Path, default=[], help="runs that differ in their seed only"
    )
    report.add_argument("--columns", type=Path, help="CSV: file and columns to make subgroups of")
    report.add_argument("--worst", type=int, default=12, help="errors to show with Grad-CAM")


def run(args: argparse.Namespace) -> int:
    """Scores or compares."""
    return _compare(args) if args.compare else _score(args)


def _score(args: argparse.Namespace) -> int:
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.data and (args.source or args.part != "test"):
        raise UserError("--data scores all images of another set: leave out --source and --part")
    if args.data and args.report:
        raise UserError("--report on other images takes --external with --map, not --data")
    options = _report_options(args)
    from rcmnet_jax.checkpoints import load_run
    from rcmnet_jax.training.score_run import HomeImages, score_other_images

    restored = load_run(args.workdir)
    out = args.out or args.workdir
    common = {"data_dir": args.data_dir, "batch_size": args.batch_size}
    if args.data:
        print(score_other_images(restored, args.data, out=out, **common).table())
    else:
        images = HomeImages(restored, source=args.source, **common)
        scored = images.score(args.part)
        print(scored.write(out, restored.class_names).table())
        if options is not None:
            _report(restored, images, scored, args.workdir, out, options)
            print(f"report: {out / args.part}_report.html")
    print(f"written to {out}")
    return OK


def _report_options(args: argparse.Namespace):
    """What the report is to hold; None without --report. Wrong values are told before any work."""
    if not args.report:
        return None
    from rcmnet_jax.report import ReportOptions

    return ReportOptions(
        review_budget=args.review_budget,
        against=args.against,
        seeds=tuple(args.seeds),
        columns=args.columns,
        worst=args.worst,
        command=shlex.join(["rcmnet", *sys.argv[1:]]),
    )


def _report(restored, images, scored, workdir: Path, out: Path, options) -> None:
    from rcmnet_jax.report import write_report

    split = images.split
    has_validation = len(split.indices("val")) > 0
    write_report(
        restored,
        scored,
        images.pixels,
        images.score("val") if has_validation else None,
        workdir=workdir.absolute(),
        out=out,
        part_of=dict(zip(split.files.tolist(), split.part.tolist(), strict=True)),
        parts_told=f"the split of the run ({split.protocol}, by {split.level})",
        options=options,
    )


def _compare(args: argparse.Namespace) -> int:
    from rcmnet_jax.evaluation.comparison import compare

    first, second = (p / "test_predictions.csv" if p.is_dir() else p for p in args.compare)
    comparison = compare(first, second, names=(str(args.compare[0]), str(args.compare[1])))
    print(comparison.table())
    if args.out:
        from rcmnet_jax.evaluation.report import write_json

        write_json(args.out / "comparison.json", comparison.to_dict())
    return OK
