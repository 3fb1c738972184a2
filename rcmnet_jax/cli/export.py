"""Write a trained network for other places: one portable file, PyTorch, ONNX or StableHLO.

The run's own images are used to fit the temperature and the accept/review thresholds (bundle) and
to check the export against the live network before it is written.
"""

import argparse
import sys
from pathlib import Path

from rcmnet_jax.cli.arguments import user_path, user_path_text
from rcmnet_jax.cli.exit_codes import OK
from rcmnet_jax.errors import ConfigError, DataError, UserError
from rcmnet_jax.files import require_folder

EXAMPLES = """\
examples:
  rcmnet export --workdir checkpoints/pbc_rcmnet --out model.rcmnet
  rcmnet export --workdir checkpoints/pbc_rcmnet --out small.rcmnet --precision float16
  rcmnet export --workdir model.rcmnet --source PBC_FOLDER --out model.onnx
  rcmnet export --workdir model.rcmnet --source PBC_FOLDER --out model.stablehlo
  rcmnet export --workdir checkpoints/pbc_rcmnet --out model.safetensors
"""
# Format -> the endings of --out that stand for it.
FORMATS = {
    "bundle": (".rcmnet",),
    "onnx": (".onnx",),
    "stablehlo": (".stablehlo",),
    "torch": (".safetensors", ".pth"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--workdir", type=user_path, required=True, help="a run, or a bundle")
    parser.add_argument("--out", type=user_path, required=True, help="the file to write")
    parser.add_argument(
        "--format", choices=FORMATS, help="by the ending of --out; bundle where it has none"
    )
    parser.add_argument(
        "--source", type=user_path_text, help="where the run's own images are now, if they moved"
    )
    parser.add_argument("--data-dir", type=user_path_text, help="where built data sets are kept")
    parser.add_argument(
        "--no-data", action="store_true", help="do not look for the run's images: no calibration"
    )
    parser.add_argument(
        "--precision", choices=("float32", "float16"), default="float32", help="of the bundle"
    )
    parser.add_argument("--folder", action="store_true", help="a bundle as a folder")
    parser.add_argument("--licence", help="of the weights, for bundle and model card")
    parser.add_argument("--citation", help="to add to those of network and images")
    parser.add_argument("--batch-size", type=int, default=64)


def run(args: argparse.Namespace) -> int:
    """Exports."""
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    format_name = args.format or ("bundle" if args.folder else _format_of(args.out))
    if format_name != "bundle" and (args.folder or args.precision != "float32"):
        raise UserError("--folder and --precision are for bundles: leave them out")
    require_folder(args.out.parent)
    from rcmnet_jax.checkpoints import load_model

    network = load_model(args.workdir)
    data = _open_data(args, network)
    parity = _export(format_name, args, network, data)
    size = sum(p.stat().st_size for p in [args.out, *args.out.glob("*")] if p.is_file())
    print(f"{args.out}: {format_name}, {size / 1e6:.1f} MB, {parity.line()}")
    return OK


def _export(format_name: str, args: argparse.Namespace, network, data):
    """Writes the file; gives its agreement with the live network."""
    common = {
        "data": data,
        "batch_size": args.batch_size,
        "licence": args.licence,
        "citation": args.citation,
    }
    if format_name == "bundle":
        from rcmnet_jax.export.to_bundle import export_bundle

        settings = {"precision": args.precision, "folder": args.folder}
        return export_bundle(network, args.out, **settings, **common)
    from rcmnet_jax.export import formats

    exporters = {
        "onnx": formats.export_onnx,
        "stablehlo": formats.export_stablehlo,
        "torch": formats.export_torch,
    }
    return exporters[format_name](network, args.out, **common)


def _open_data(args: argparse.Namespace, network):
    """The run's images; None, with a word about it, where they are not at hand."""
    if args.no_data:
        if args.source:
            raise UserError("--no-data and --source contradict each other: leave one out")
        return None
    from rcmnet_jax.scoring.run_data import open_run_data

    try:
        return open_run_data(network, source=args.source, data_dir=args.data_dir)
    except (DataError, ConfigError) as error:
        if args.source:
            raise
        print(
            f"warning: the run's images are not at hand ({error}): checked on noise, and nothing"
            " is fitted; give --source to change that",
            file=sys.stderr,
        )
        return None


def _format_of(out: Path) -> str:
    for name, endings in FORMATS.items():
        if out.suffix in endings:
            return name
    if out.suffix:
        known = ", ".join(ending for endings in FORMATS.values() for ending in endings)
        raise UserError(f"no format ends in {out.suffix}: name a file in {known}, or give --format")
    return "bundle"
