"""Show where one or several trained networks looked, and score the maps."""

import argparse

from rcmnet_jax.cli.arguments import user_path, user_path_text
from rcmnet_jax.cli.exit_codes import OK, PARTIAL
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import require_folder

EXAMPLES = """\
examples:
  rcmnet explain --model checkpoints/pbc_rcmnet --images CELLS --out maps
  rcmnet explain --model model.rcmnet --images CELLS --layer last --out last_maps
  rcmnet explain --model checkpoints/pbc_resnet18 checkpoints/pbc_rcmnet --part test --out fig9
  rcmnet explain --model checkpoints/pbc_rcmnet --part test --limit 0 --scores-only \\
      --boxes cell_boxes.csv --checks --out scores

Writes index.html, grid.png, failures.png, overlays/, maps.npz, maps.json and, with --boxes or
--checks, scores.json. Files that an earlier call wrote to the same folder are removed, others stay.
Exit status 1: some images could not be read; the terminal, the page and maps.json name them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        *("--model", "--workdir"),
        dest="models",
        nargs="+",
        type=user_path,
        required=True,
        metavar="MODEL",
        help="runs of train.py, bundles or checkpoints, shown side by side",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--images",
        nargs="+",
        type=user_path_text,
        default=[],
        help="image files, or folders of them",
    )
    what.add_argument(
        "--part", choices=("test", "val", "train"), help="a part of the first run's own split"
    )
    parser.add_argument(
        "--out",
        type=user_path,
        required=True,
        help="folder to write to",
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=200,
        help="images at most, 0 for all (200)",
    )
    maps = parser.add_argument_group("the maps")
    maps.add_argument("--method", default="grad_cam", help="grad_cam, grad_cam_pp, hires_cam, ...")
    maps.add_argument(
        "--layer",
        help="stage3, stage4/block2/cbam, bot, ... or last; by default the deepest layer whose map"
        " has at least 6x6 cells",
    )
    maps.add_argument("--target", default="logit", help="logit or probability")
    maps.add_argument(
        "--class", dest="class_name", help="class to explain; the predicted by default"
    )
    maps.add_argument("--smooth", action="store_true", help="mean over rotations and mirror images")
    maps.add_argument(
        "--untrained", action="store_true", help="add the first network with untrained weights"
    )
    scores = parser.add_argument_group("scores")
    scores.add_argument("--boxes", type=user_path, help="CSV of boxes around the cells")
    scores.add_argument(
        "--checks", action="store_true", help="randomise parameters; delete and insert pixels"
    )
    scores.add_argument("--scores-only", action="store_true", help="write scores.json alone")
    parser.add_argument(
        "--source", type=user_path_text, help="where the run's own images are now, if they moved"
    )
    parser.add_argument(
        "--data-dir",
        type=user_path_text,
        help="where built data sets are kept",
    )
    parser.add_argument("--batch-size", type=int, default=32)


def run(args: argparse.Namespace) -> int:
    """Explains, scores and writes."""
    if args.scores_only and not (args.boxes or args.checks):
        raise UserError("--scores-only needs something to score: add --boxes or --checks")
    if args.limit < 0:
        raise UserError(f"--limit must be 0 (all) or more, got {args.limit}")
    if args.part is None and args.source:
        raise UserError("--source is for --part: give the images to --images")
    require_folder(args.out)
    from rcmnet_jax.explain.explanation import ExplainSettings, explain_images

    given = {
        name: getattr(args, name) for name in ExplainSettings.__dataclass_fields__ if name in args
    }
    given |= {"models": tuple(args.models), "images": tuple(args.images)}
    explanation = explain_images(ExplainSettings(**given, pictures=not args.scores_only))
    print(explanation.summary())
    for file, reason in explanation.read.unreadable:
        print(f"not read: {file}: {reason}")
    print(f"written to {args.out}")
    return PARTIAL if explanation.read.unreadable else OK
