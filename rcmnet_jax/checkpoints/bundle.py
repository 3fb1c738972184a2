"""The portable bundle: a trained network in one file, for another machine, years later.

A zip (or folder) of ``bundle.json`` (model, classes, preprocessing, normalisation, temperature,
thresholds, hashes, provenance, licence), ``weights.safetensors``, ``gate.safetensors`` where the
out-of-distribution statistics were fitted, and ``README.md``, the model card. It opens without
Orbax, on any device, and opening it executes nothing: JSON, numbers, and text.

The format has a version; docs/weights.md describes it, tests/checkpoints/ keeps a file of each.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError

from rcmnet_jax.checkpoints.container import CARD, GATE, RECORD, WEIGHTS, Container, write_container
from rcmnet_jax.checkpoints.digest import tree_sha256
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.inference.gate import Gate
from rcmnet_jax.inference.network import TrainedNetwork, abstract_variables
from rcmnet_jax.models import create_model
from rcmnet_jax.types import PyTree

FORMAT, FORMAT_VERSION = "rcmnet-bundle", 1
PRECISIONS = {"float32": np.float32, "float16": np.float16}
# Larger than any network here; a record cannot make the reader build for hours.
LARGEST_OPTION, LONGEST_OPTION = 65_536, 64


def is_bundle(path: Path) -> bool:
    """Whether a path is to be opened as a bundle: any file, or a folder with the record."""
    return path.is_file() or (path / RECORD).is_file()


def write_bundle(
    path: str | Path,
    network: TrainedNetwork,
    *,
    card: str,
    record: Mapping[str, Any] | None = None,
    precision: str = "float32",
    folder: bool = False,
) -> str:
    """Writes a network as a bundle, whole or not at all.

    Args:
      path: the file, by custom ``*.rcmnet``, or the folder.
      network: the network, its temperature and gate where they are fitted.
      card: the model card, Markdown.
      record: further entries for ``bundle.json``: licence, citation, checks.
      precision: ``float16`` halves the file; batch statistics stay float32.
      folder: write a folder instead of one file.

    Returns:
      The SHA-256 of the weights as the bundle will give them.

    Raises:
      UserError: it cannot be written, or the weights do not fit float16.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    weights = {
        "/".join(leaf_path): _stored(leaf_path, leaf, precision)
        for leaf_path, leaf in sorted(flatten_dict(dict(network.variables)).items())
    }
    files = {WEIGHTS: safetensors.numpy.save(weights), CARD: card.encode()}
    if network.gate is not None:
        files[GATE] = safetensors.numpy.save(network.gate.arrays())
    digest = tree_sha256(in_precision(network.variables, precision))
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class_names": list(network.class_names),
        "model": network.meta["config"]["model"],
        "preprocess": network.preprocess.to_dict(),
        "normalization": {"mean": list(network.mean), "std": list(network.std)},
        "step": network.step,
        "precision": precision,
        "weights_sha256": digest,
        "temperature": network.temperature,
        "gate": None if network.gate is None else network.gate.to_dict(),
        "meta": network.meta,
        **(record or {}),
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(files.items())
        },
    }
    content["sha256"] = _record_sha256(content)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_container(Path(path), {RECORD: text.encode(), **files}, folder=folder)
    return digest


def read_bundle(path: str | Path) -> TrainedNetwork:
    """Opens a bundle.

    Returns:
      As `load_model` gives it for a training run. ``meta["bundle"]`` holds what the record says
      beyond the run's own: format version, precision, licence, citation, checks.

    Raises:
      CheckpointError: no bundle, a damaged one, or one of a newer format.
    """
    path = Path(path)
    try:
        with Container(path) as container:
            record = _read_record(container)
            weights = _read_arrays(container, WEIGHTS, record)
            gate_arrays = _read_arrays(container, GATE, record) if record["gate"] else None
            _read_checked(container, CARD, record)
        return _network(record, weights, gate_arrays)
    except UserError as error:
        message = str(error)
        named = message if str(path) in message else f"{path}: {message}"
        raise CheckpointError(named) from error
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"the record in {path} is wrong ({what}): export it again") from error


def read_card(path: str | Path) -> str:
    """The model card of a bundle, Markdown."""
    with Container(Path(path)) as container:
        return _read_checked(container, CARD, _read_record(container)).decode()


def in_precision(variables: PyTree, precision: str) -> PyTree:
    """The variables as a bundle of this precision gives them back: float32, rounded."""
    flat = flatten_dict(dict(variables))
    return unflatten_dict(
        {path: _stored(path, leaf, precision).astype(np.float32) for path, leaf in flat.items()}
    )


def _stored(path: tuple[str, ...], leaf: Any, precision: str) -> np.ndarray:
    array = np.ascontiguousarray(np.asarray(leaf, np.float32))
    if path[0] != "params":
        # Running variances span more than float16 can hold, and are few.
        return array
    with np.errstate(over="ignore"):
        stored = array.astype(PRECISIONS[precision])
    if not np.array_equal(np.isfinite(array), np.isfinite(stored)):
        raise UserError(
            f"{'/'.join(path)} has values too large for {precision}: export with --precision"
            " float32"
        )
    return stored


def _network(
    record: dict[str, Any], weights: dict[str, np.ndarray], gate_arrays: dict | None
) -> TrainedNetwork:
    preprocess = Preprocess.from_dict(record["preprocess"])
    options = {key: _bounded(key, value) for key, value in record["model"].items()}
    if any(convolutions > LONGEST_OPTION for convolutions, _ in options.get("stages", ())):
        raise CheckpointError("model.stages is no network's: export it again")
    class_names = tuple(str(name) for name in record["class_names"])
    model = create_model(num_classes=len(class_names), **options)
    exact = {tuple(name.split("/")): a.astype(np.float32) for name, a in weights.items()}
    if tree_sha256(unflatten_dict(exact)) != record["weights_sha256"]:
        raise CheckpointError("the weights are not those that were written: export it again")
    variables = _fitted(weights, abstract_variables(model, preprocess))
    own = ("model", "class_names", "preprocess", "normalization", "meta", "gate")
    extra = {key: value for key, value in record.items() if key not in own}
    mean, std = (_three(record["normalization"][key]) for key in ("mean", "std"))
    return TrainedNetwork(
        model=model,
        variables=variables,
        class_names=class_names,
        preprocess=preprocess,
        mean=mean,
        std=std,
        step=int(record["step"]),
        meta={**record["meta"], "bundle": extra},
        temperature=None if record["temperature"] is None else float(record["temperature"]),
        gate=None if gate_arrays is None else Gate.from_parts(record["gate"], gate_arrays),
    )


def _fitted(weights: dict[str, np.ndarray], abstract: PyTree) -> PyTree:
    """The weights on the first local device, if they are exactly those of the network."""
    flat = {"/".join(path): leaf for path, leaf in flatten_dict(abstract).items()}
    wrong = sorted(flat.keys() ^ weights.keys()) or sorted(
        name for name, leaf in flat.items() if weights[name].shape != leaf.shape
    )
    if wrong:
        raise CheckpointError(
            f"its weights are not those of its network ({wrong[0]}): export it again"
        )
    placed = {
        tuple(name.split("/")): jax.device_put(weights[name].astype(leaf.dtype), leaf.sharding)
        for name, leaf in flat.items()
    }
    # A network without batch norm has an empty collection, which no leaf stands for.
    return {"params": {}, "batch_stats": {}, **unflatten_dict(placed)}


def _read_record(container: Container) -> dict[str, Any]:
    try:
        record = json.loads(container.read(RECORD))
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{RECORD} in {container.path} is no JSON ({error}): export it again"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(f"{container.path} is no bundle of {FORMAT}: export it again")
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{container.path} is a bundle of format {version}, this version reads"
            f" {FORMAT_VERSION}: update rcmnet-jax"
        )
    if record.pop("sha256", None) != _record_sha256(record):
        raise CheckpointError(
            f"{RECORD} in {container.path} was changed after it was written: export it again"
        )
    return record


def _read_checked(container: Container, name: str, record: dict[str, Any]) -> bytes:
    data = container.read(name)
    said = record["files"].get(name, {}).get("sha256")
    if hashlib.sha256(data).hexdigest() != said:
        raise CheckpointError(
            f"{name} in {container.path} is not what was written: download or export it again"
        )
    return data


def _read_arrays(container: Container, name: str, record: dict[str, Any]) -> dict[str, np.ndarray]:
    data = _read_checked(container, name, record)
    try:
        return safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{name} in {container.path} cannot be read ({error}): export it again"
        ) from error


def _record_sha256(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _bounded(key: str, value: Any) -> Any:
    """A field of the network from JSON: lists to tuples, numbers of a network's size."""
    if isinstance(value, list) and len(value) <= LONGEST_OPTION:
        return tuple(_bounded(key, item) for item in value)
    # Blocks and stages are built in a loop, so of them there must be few.
    largest = LONGEST_OPTION if key == "stage_sizes" else LARGEST_OPTION
    if not isinstance(value, bool | str) and not (
        isinstance(value, int | float) and abs(value) <= largest
    ):
        raise CheckpointError(f"model.{key}={str(value)[:40]} is no network's: export it again")
    return value


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
