"""Score a trained network on its own test part or on other images, or compare two runs."""

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
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet --report --against checkpoints/pbc_resnet18
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet --data OTHER_FOLDER --out other_lab
  rcmnet evaluate --workdir checkpoints/pbc_rcmnet --external OTHER_LAB --map classes.csv \\
      --out other_lab --report
  rcmnet evaluate --compare checkpoints/pbc_resnet18 checkpoints/pbc_rcmnet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", type=user_path, help="a run of train.py, or a bundle")
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
        "--external",
        type=user_path_text,
        help="images of another laboratory, scored with each option that may help",
    )
    parser.add_argument(
        "--map", type=user_path, help="with --external, a CSV label,class: which of theirs is which"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        metavar="OPTION",
        help="with --external: plain, or any of scale colour bn views joined by +; all by default",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=2,
        help="with --external, distortions of home images to choose the option on; 0: no choice",
    )
    parser.add_argument(
        "--source", type=user_path_text, help="where the run's own images are now, if they moved"
    )
    parser.add_argument("--part", choices=("test", "val", "train"), default="test")
    parser.add_argument("--out", type=user_path, help="where to write; a run's workdir by default")
    parser.add_argument("--data-dir", type=user_path_text, help="where built data sets are kept")
    parser.add_argument("--batch-size", type=int, default=64)
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
    """Scores or compares."""
    if args.out:
        require_folder(args.out)
    return _compare(args) if args.compare else _score(args)


def _score(args: argparse.Namespace) -> int:
    _check(args)
    options = _report_options(args)
    from rcmnet_jax.checkpoints import load_model
    from rcmnet_jax.scoring.run import HomeImages, score_other_images, tell_test_access

    restored = load_model(args.workdir)
    if not args.out and "bundle" in restored.meta:
        raise UserError(f"{args.workdir} is a bundle: name a folder to write to with --out")
    out = args.out or args.workdir
    common = {"data_dir": args.data_dir, "batch_size": args.batch_size}
    if args.data:
        print(score_other_images(restored, args.data, out=out, **common).table())
        print(f"written to {out}")
        return OK
    images = HomeImages(restored, source=args.source, **common)
    if args.external:
        return _external(args, restored, images, out, options, common)
    scored = images.score(args.part)
    tell_test_access(scored, out)
    print(scored.write(out, restored.class_names).table())
    if options is not None:
        split = images.split
        _report(
            args,
            restored,
            images,
            scored,
            images.pixels,
            out=out,
            part_of=dict(zip(split.files.tolist(), split.part.tolist(), strict=True)),
            parts_told=f"the split of the run ({split.protocol}, by {split.level})",
            options=options,
        )
    print(f"written to {out}")
    return OK


def _check(args: argparse.Namespace) -> None:
    """Arguments that contradict each other, told before any work."""
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.data and (args.source or args.part != "test"):
        raise UserError("--data scores all images of another set: leave out --source and --part")
    if args.data and (args.report or args.external):
        raise UserError("--data goes with neither --report nor --external: use --external --map")
    if bool(args.external) != bool(args.map):
        raise UserError("--external and --map go together: the map says which class is which")
    if args.external and args.part != "test":
        raise UserError("--external scores all images of another set: leave out --part")
    if args.options and not args.external:
        raise UserError("--options belongs to --external")
    if args.draws < 0:
        raise UserError(f"--draws cannot be negative, got {args.draws}")


def _external(args: argparse.Namespace, restored, images, out: Path, options, common) -> int:
    from rcmnet_jax.evaluation.results import write_json
    from rcmnet_jax.scoring.adaptations import all_options, parse_option
    from rcmnet_jax.scoring.other_lab import score_external

    found = score_external(
        restored,
        images,
        args.external,
        args.map,
        options=[parse_option(name) for name in args.options] if args.options else all_options(),
        draws=args.draws,
        **common,
    )
    found.scored.write(out, restored.class_names)
    write_json(out / "external_options.json", found.to_dict())
    print(found.table())
    if options is not None:
        dataset = found.scored.dataset
        _report(
            args,
            restored,
            images,
            found.scored,
            found.pixels,
            out=out,
            part_of=dict.fromkeys(dataset.records.file.tolist(), "external"),
            parts_told="all of another laboratory's images, none of them trained on",
            options=options,
            extra=found.to_dict(),
        )
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


def _report(args: argparse.Namespace, restored, images, scored, pixels, **rest) -> None:
    from rcmnet_jax.report import write_report

    has_validation = len(images.split.indices("val")) > 0
    write_report(
        restored,
        scored,
        pixels,
        images.score("val") if has_validation else None,
        workdir=args.workdir.absolute(),
        **rest,
    )
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
        from rcmnet_jax.evaluation.over_seeds import compare_seeds

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
