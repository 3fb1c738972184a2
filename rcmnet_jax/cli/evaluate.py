"""Score a trained network on its own test part or on other images, or compare two."""

import argparse
import shlex
import sys
from pathlib import Path

from rcmnet_jax.cli.arguments import user_path, user_path_text
from rcmnet_jax.cli.exit_codes import OK
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import require_folder

EXAMPLES = """\
examples:
  rcmnet evaluate --model checkpoints/pbc_rcmnet
  rcmnet evaluate --model checkpoints/pbc_rcmnet --report --against checkpoints/pbc_resnet18
  rcmnet evaluate --model model.rcmnet --data OTHER_FOLDER --out other_images
  rcmnet evaluate --model checkpoints/pbc_rcmnet --other-lab THEIR_FOLDER --map classes.csv \\
      --out other_lab --report
  rcmnet evaluate --compare checkpoints/pbc_resnet18 checkpoints/pbc_rcmnet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model",
        "--workdir",
        type=user_path,
        help="a run of train.py, a bundle, or a checkpoint folder of a run",
    )
    what.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        type=user_path,
        help="two runs, runs of several seeds, or predictions CSVs, of the same test images",
    )
    parser.add_argument(
        "--data",
        type=user_path_text,
        help="other images to score, all of them: folder, zip or manifest",
    )
    parser.add_argument(
        "--source", type=user_path_text, help="where the run's own images are now, if they moved"
    )
    parser.add_argument("--part", choices=("test", "val", "train"), default="test")
    parser.add_argument(
        "--out", type=user_path, help="where to write; the run's own folder by default"
    )
    parser.add_argument(
        "--data-dir",
        type=user_path_text,
        help="where built data sets are kept",
    )
    parser.add_argument("--batch-size", type=int, default=64)
    lab = parser.add_argument_group("another laboratory", "label-free adaptations, side by side")
    lab.add_argument(
        "--other-lab", "--external", type=user_path_text, help="its images: folder, zip or manifest"
    )
    lab.add_argument(
        "--map", type=user_path, help="CSV label,class: which of theirs is which of ours"
    )
    lab.add_argument(
        "--adaptations",
        "--options",
        nargs="+",
        metavar="NAME",
        help="plain, or any of scale colour bn views joined by +; all combinations by default",
    )
    lab.add_argument(
        "--draws",
        type=int,
        default=2,
        help="distortions of home images to choose the adaptation on; 0: choose none",
    )
    report = parser.add_argument_group("report", "one page that stands by itself, and its JSON")
    report.add_argument("--report", action="store_true", help="also write <part>_report.html")
    report.add_argument(
        "--review-budget", type=float, default=0.05, help="share of images people can look at"
    )
    report.add_argument(
        "--against", type=user_path, help="a run to compare with, on the same images"
    )
    report.add_argument(
        "--seeds", nargs="+", type=user_path, default=[], help="runs that differ in their seed only"
    )
    report.add_argument(
        "--columns", type=user_path, help="CSV: file and columns to make subgroups of"
    )
    report.add_argument("--worst", type=int, default=12, help="errors to show with Grad-CAM")


def run(args: argparse.Namespace) -> int:
    """Scores a network, or compares two."""
    if args.out:
        require_folder(args.out)
    return _compare(args) if args.compare else _score(args)


def _score(args: argparse.Namespace) -> int:
    _check(args)
    options = _report_options(args)
    from rcmnet_jax.checkpoints import load_model, run_folder
    from rcmnet_jax.scoring.run_data import open_run_data
    from rcmnet_jax.scoring.score import score_images, score_part

    network = load_model(args.model)
    out = args.out or run_folder(args.model)
    if out is None:
        raise UserError(f"{args.model} is a bundle: name a folder to write to with --out")
    if args.data:
        scored = score_images(
            network, args.data, data_dir=args.data_dir, batch_size=args.batch_size
        )
        print(scored.write(out, network.class_names).table())
        print(f"written to {out}")
        return OK
    data = open_run_data(network, source=args.source, data_dir=args.data_dir)
    if args.other_lab:
        return _score_other_lab(args, data, out, options)
    scored = score_part(data, args.part, batch_size=args.batch_size)
    print(scored.write(out, network.class_names).table())
    if options is not None:
        split = data.split
        _report(
            args,
            data,
            scored,
            data.pixels,
            out=out,
            part_of=dict(zip(split.files.tolist(), split.part.tolist(), strict=True)),
            parts_told=f"the split of the run ({split.protocol}, by {split.level})",
            options=options,
        )
    print(f"written to {out}")
    return OK


def _check(args: argparse.Namespace) -> None:
    """Refuses arguments that contradict each other before any work is done."""
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.data and (args.source or args.part != "test"):
        raise UserError("--data scores all images of another set: leave out --source and --part")
    if args.data and (args.report or args.other_lab):
        raise UserError("--data goes with neither --report nor --other-lab: use --other-lab --map")
    if bool(args.other_lab) != bool(args.map):
        raise UserError("--other-lab and --map go together: the map says which class is which")
    if args.other_lab and args.part != "test":
        raise UserError("--other-lab scores all images of another set: leave out --part")
    if args.adaptations and not args.other_lab:
        raise UserError("--adaptations belongs to --other-lab")
    if args.draws < 0:
        raise UserError(f"--draws cannot be negative, got {args.draws}")


def _score_other_lab(args: argparse.Namespace, data, out: Path, options) -> int:
    from rcmnet_jax.evaluation.results import write_json
    from rcmnet_jax.scoring.adaptations import all_combinations, parse_combination
    from rcmnet_jax.scoring.other_lab import score_other_lab

    names = args.adaptations
    found = score_other_lab(
        data,
        args.other_lab,
        args.map,
        combinations=[parse_combination(n) for n in names] if names else all_combinations(),
        draws=args.draws,
        batch_size=args.batch_size,
    )
    found.scored.write(out, data.network.class_names)
    write_json(out / "external_options.json", found.to_dict())
    print(found.table())
    if options is not None:
        dataset = found.scored.dataset
        _report(
            args,
            data,
            found.scored,
            found.pixels,
            out=out,
            part_of=dict.fromkeys(dataset.records.file.tolist(), found.scored.part),
            parts_told="all of another laboratory's images, none of them trained on",
            options=options,
            extra=found.to_dict(),
        )
    print(f"written to {out}")
    return OK


def _report_options(args: argparse.Namespace):
    """Settings of the report, checked before any work; None without --report."""
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


def _report(args: argparse.Namespace, data, scored, pixels, **rest) -> None:
    from rcmnet_jax.checkpoints import run_folder
    from rcmnet_jax.report import write_report
    from rcmnet_jax.scoring.score import score_part

    validation = None
    if len(data.rows("val")):
        validation = score_part(data, "val", batch_size=args.batch_size)
    workdir = run_folder(args.model) or args.model.absolute()
    write_report(data.network, scored, pixels, validation, workdir=workdir, **rest)
    print(f"report: {rest['out'] / scored.part}_report.html")


def _compare(args: argparse.Namespace) -> int:
    from rcmnet_jax.evaluation.comparison import compare

    names = (str(args.compare[0]), str(args.compare[1]))
    files = [_predictions(path) for path in args.compare]
    found: dict = {}
    for title, (first, second) in _pairs(names, *files).items():
        comparison = compare(first, second, names=names)
        print(f"{title}:\n{comparison.table()}\n" if title else comparison.table())
        found[title or "test"] = comparison.to_dict()
    if min(map(len, files)) > 1:
        from rcmnet_jax.evaluation.seeds import compare_seeds

        over_seeds = compare_seeds(*(list(runs.values()) for runs in files), names=names)
        print(f"all seeds:\n{over_seeds.table()}")
        found["over_seeds"] = over_seeds.to_dict()
    if args.out:
        from rcmnet_jax.evaluation.results import write_json

        write_json(args.out / "comparison.json", found if len(found) > 1 else comparison.to_dict())
    return OK


def _pairs(
    names: tuple[str, str], first: dict[str, Path], second: dict[str, Path]
) -> dict[str, tuple[Path, Path]]:
    """Predictions to compare: of two runs, or of each seed that both of two protocols have."""
    common = sorted(first.keys() & second.keys())
    if not common:
        raise UserError(
            f"{names[0]} has {', '.join(first) or 'no seeds'},"
            f" {names[1]} {', '.join(second) or 'no seeds'}: name the folder of a seed"
        )
    return {name: (first[name], second[name]) for name in common}


def _predictions(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"": path}
    seeds = {p.parent.name: p for p in sorted(path.glob("seed*/test_predictions.csv"))}
    return seeds or {"": path / "test_predictions.csv"}
