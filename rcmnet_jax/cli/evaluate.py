"""Score a trained network on its own test part or on other images, or compare two runs."""

import argparse
from pathlib import Path

from rcmnet_jax.cli.exit_codes import OK
from rcmnet_jax.errors import UserError

EXAMPLES = """\
examples:
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet --data OTHER_FOLDER --out other_lab
  rcmnet evaluate --compare checkpoints/pbc_resnet18 checkpoints/pbc_rcmnet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", type=Path, help="a run of train.py, or a bundle")
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
    parser.add_argument("--out", type=Path, help="where to write; a run's workdir by default")
    parser.add_argument("--data-dir", help="where built data sets are kept")
    parser.add_argument("--batch-size", type=int, default=64)


def run(args: argparse.Namespace) -> int:
    """Scores or compares."""
    return _compare(args) if args.compare else _score(args)


def _score(args: argparse.Namespace) -> int:
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.data and (args.source or args.part != "test"):
        raise UserError("--data scores all images of another set: leave out --source and --part")
    from rcmnet_jax.checkpoints import load_model
    from rcmnet_jax.training.score_run import score_other_images, score_part

    restored = load_model(args.workdir)
    if not args.out and "bundle" in restored.meta:
        raise UserError(f"{args.workdir} is a bundle: name a folder to write to with --out")
    out = args.out or args.workdir
    common = {"out": out, "data_dir": args.data_dir, "batch_size": args.batch_size}
    if args.data:
        evaluation = score_other_images(restored, args.data, **common)
    else:
        evaluation = score_part(restored, args.part, source=args.source, **common)
    print(evaluation.table())
    print(f"written to {out}")
    return OK


def _compare(args: argparse.Namespace) -> int:
    from rcmnet_jax.evaluation.comparison import compare

    found = {}
    for title, (first, second) in _pairs(*args.compare).items():
        comparison = compare(first, second, names=(str(args.compare[0]), str(args.compare[1])))
        print(f"{title}:\n{comparison.table()}" if title else comparison.table())
        found[title or "test"] = comparison.to_dict()
    if args.out:
        from rcmnet_jax.evaluation.report import write_json

        write_json(args.out / "comparison.json", found if len(found) > 1 else comparison.to_dict())
    return OK


def _pairs(first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    """Predictions to compare: of two runs, or of each seed that both of two protocols have."""
    files = [_predictions(path) for path in (first, second)]
    common = sorted(files[0].keys() & files[1].keys())
    if not common:
        raise UserError(
            f"{first} has {', '.join(files[0]) or 'no seeds'},"
            f" {second} {', '.join(files[1]) or 'no seeds'}: name the folder of a seed"
        )
    return {name: (files[0][name], files[1][name]) for name in common}


def _predictions(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"": path}
    seeds = {p.parent.name: p for p in sorted(path.glob("seed*/test_predictions.csv"))}
    return seeds or {"": path / "test_predictions.csv"}
