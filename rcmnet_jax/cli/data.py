"""Audit, build, split, show or draw a data set of cell images."""

import argparse

from rcmnet_jax.cli.arguments import user_path, user_path_text
from rcmnet_jax.cli.exit_codes import OK, PARTIAL
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import replacing, require_folder

NAMES = ("pbc", "cart", "cell_folder")
EXAMPLES = """\
examples:
  rcmnet data audit PBC_dataset_normal_DIB --json audit.json
  rcmnet data audit PBC_dataset_normal_DIB --split checkpoints/pbc_rcmnet/split.csv
  rcmnet data build PBC_dataset_normal_DIB --name pbc
  rcmnet data split PBC_dataset_normal_DIB --name pbc --protocol paper --out split.csv
  rcmnet data show PBC_dataset_normal_DIB --augment strong --out sheet.png
  rcmnet data synthetic drawn_cells --kind pbc --per-class 20

`audit` says what building finds, near-duplicates within and across the parts of the split, whether
size, name, colour or border alone predict the label, and a verdict on each: fine, look or act.
exit codes of audit: 0 when the verdict is fine or look, 1 when it is act or a file of a class
cannot be used, 2 when the images cannot be read at all. Hidden and system files do not count.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    audit = actions.add_parser("audit", help="say what is wrong with a folder; change nothing")
    audit.add_argument(
        "source", type=user_path_text, help="folder of class folders, zip of one, or CSV manifest"
    )
    audit.add_argument("--json", type=user_path, help="also write the whole audit here")
    audit.add_argument("--csv", type=user_path, help="also write a row per file here")
    audit.add_argument(
        "--split", type=user_path, help="split.csv of a run: which pictures are in two parts?"
    )
    audit.add_argument(
        "--threshold", type=float, help="similarity of near-duplicates, 0.93 by default"
    )
    audit.add_argument(
        "--quick", action="store_true", help="no near-duplicates and shortcuts, as building does"
    )
    audit.set_defaults(action_function=_audit)

    build = actions.add_parser("build", help="audit and write TFDS files, as training does")
    _add_source(build)
    build.set_defaults(action_function=_build)

    split = actions.add_parser("split", help="write who trains, validates and tests, as a CSV")
    _add_source(split)
    split.add_argument("--out", type=user_path, required=True, help="the CSV")
    split.add_argument("--protocol", choices=("strict", "paper"), default="strict")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--test-fraction", type=float, default=0.2)
    split.add_argument("--val-fraction", type=float, default=0.1, help="of what is left")
    split.add_argument(
        "--group-by", choices=("auto", "patient", "slide", "lab", "fold", "image"), default="auto"
    )
    split.set_defaults(action_function=_split)

    show = actions.add_parser("show", help="draw what an augmentation makes of some images")
    show.add_argument(
        "source", type=user_path_text, help="folder of class folders, zip of one, or CSV manifest"
    )
    show.add_argument("--augment", default="strong", help="none, paper, mild or strong")
    show.add_argument("--out", type=user_path, required=True, help="the PNG")
    show.add_argument("--size", type=int, default=64, help="pixels a side, as in training")
    show.add_argument("--per-class", type=int, default=2, help="images of each class")
    show.add_argument("--samples", type=int, default=11, help="augmented pictures of each image")
    show.add_argument("--seed", type=int, default=0)
    show.set_defaults(action_function=_show)

    synthetic = actions.add_parser("synthetic", help="draw synthetic cells into class folders")
    synthetic.add_argument("directory", type=user_path)
    synthetic.add_argument("--kind", choices=("pbc", "cart"), default="pbc")
    synthetic.add_argument("--per-class", type=int, default=60)
    synthetic.add_argument("--seed", type=int, default=0)
    synthetic.set_defaults(action_function=_synthetic)


def run(args: argparse.Namespace) -> int:
    """Carries out the action."""
    return args.action_function(args)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=user_path_text, help="folder of class folders, zip of one, or CSV manifest"
    )
    parser.add_argument("--name", choices=NAMES, default="cell_folder")
    parser.add_argument("--data-dir", type=user_path, help="where built data sets are kept")


def _audit(args: argparse.Namespace) -> int:
    for option in ("json", "csv"):
        if path := getattr(args, option):
            require_folder(path.parent, f"--{option}")
    from rcmnet_jax.data import Audit, audit_source, audit_thoroughly, open_source
    from rcmnet_jax.data.audit import ThoroughAudit
    from rcmnet_jax.data.audit.verdicts import ACT, verdict_of, worst

    if args.quick and (args.split or args.threshold is not None):
        raise UserError("--quick looks for no near-duplicates: leave out --split, --threshold")
    source = open_source(args.source)
    shown: Audit | ThoroughAudit
    if args.quick:
        audit = shown = audit_source(source)
    else:
        threshold = {} if args.threshold is None else {"threshold": args.threshold}
        shown = audit_thoroughly(source, split_csv=args.split, **threshold)
        audit = shown.audit
    print(shown.table())
    if args.json:
        shown.to_json(args.json)
    if args.csv:
        audit.to_csv(args.csv)
    dropped = any(row.status == "dropped" for row in audit.rows)
    act = worst([verdict_of(finding)[0] for finding in shown.findings]) == ACT
    if isinstance(shown, ThoroughAudit):
        act = shown.verdict == ACT
    return PARTIAL if dropped or act else OK


def _build(args: argparse.Namespace) -> int:
    from rcmnet_jax.data import prepare_dataset

    dataset = prepare_dataset(args.name, args.source, args.data_dir)
    print(dataset.audit.table())
    print(f"{len(dataset)} images in {dataset.directory}")
    return OK


def _split(args: argparse.Namespace) -> int:
    require_folder(args.out.parent)
    from rcmnet_jax.data import prepare_dataset, write_split_csv

    dataset = prepare_dataset(args.name, args.source, args.data_dir)
    split = dataset.split(
        group_by=args.group_by,
        protocol=args.protocol,
        seed=args.seed,
        test_fraction=args.test_fraction,
        val_fraction=args.val_fraction,
    )
    write_split_csv(split, args.out)
    print(split.table())
    print(f"written to {args.out}; train on it with --config.data.split.csv={args.out}")
    return OK


def _show(args: argparse.Namespace) -> int:
    require_folder(args.out.parent)
    for option, smallest in (("per_class", 1), ("samples", 1), ("seed", 0)):
        if getattr(args, option) < smallest:
            raise UserError(f"--{option.replace('_', '-')} must be at least {smallest}")
    import jax
    from PIL import Image

    from rcmnet_jax.data import Preprocess, open_source
    from rcmnet_jax.data.augment_settings import preset
    from rcmnet_jax.data.contact_sheet import contact_sheet, sample_images

    augmentation = preset(args.augment)
    images = sample_images(
        open_source(args.source),
        Preprocess(args.size, args.size),
        per_class=args.per_class,
        seed=args.seed,
    )
    sheet = contact_sheet(images, augmentation, jax.random.key(args.seed), samples=args.samples)
    with replacing(args.out) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
    print(f"{len(images)} images, each with {args.samples} augmented pictures, in {args.out}")
    return OK


def _synthetic(args: argparse.Namespace) -> int:
    from rcmnet_jax.synthetic import write_synthetic_folder

    directory = write_synthetic_folder(
        args.directory, kind=args.kind, per_class=args.per_class, seed=args.seed, progress=True
    )
    print(f"synthetic cells (drawn, no patient data) in {directory}")
    return OK
