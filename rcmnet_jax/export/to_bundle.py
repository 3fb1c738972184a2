"""From a training run to a portable bundle: calibrated, checked, described."""

import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from rcmnet_jax.checkpoints.bundle import in_precision, read_bundle, write_bundle
from rcmnet_jax.checkpoints.provenance import collect_provenance
from rcmnet_jax.export.calibrate import calibrate
from rcmnet_jax.export.card import citation_text, licence_text, model_card
from rcmnet_jax.export.parity import TOLERANCE, Parity, compare_logits, logits_by_network
from rcmnet_jax.inference import TrainedNetwork
from rcmnet_jax.scoring.run_data import RunData

logger = logging.getLogger(__name__)


def export_bundle(
    network: TrainedNetwork,
    out: Path,
    *,
    data: RunData | None,
    precision: str = "float32",
    folder: bool = False,
    licence: str | None = None,
    citation: str | None = None,
    batch_size: int = 64,
) -> Parity:
    """Writes a bundle.

    Args:
      network: the network, of a run or of another bundle.
      out: the file, or the folder.
      data: the run's images; without them temperature and thresholds stay as they are.
      precision: float32 or float16, for the weights.
      folder: write a folder.
      licence: of the weights, as the exporter states it.
      citation: to add to those of network and images.
      batch_size: images a call.

    Returns:
      The agreement of the bundle's weights with the live ones; only measured for float16.
    """
    rounded = dataclasses.replace(network, variables=in_precision(network.variables, precision))
    before = network.meta.get("export", {})
    facts: Mapping[str, Any] | None = before.get("facts")
    not_fitted: list[str] = before.get("not_fitted", [])
    if data is not None and len(data.rows("val")):
        # On the rounded weights, which are those that predict.
        rounded, facts, not_fitted = calibrate(rounded, data, batch_size=batch_size)
    if not_fitted:
        reasons = "; ".join(not_fitted)
        logger.warning("not fitted: %s: every image gets the status review", reasons)
    parity = _written_and_read(rounded, network, data, precision, batch_size)
    record = {
        "licence": licence_text(network, licence),
        "citation": citation_text(network, citation),
        "precision": precision,
        "parity": {**parity.to_dict(), "line": parity.line()},
        "exported_with": _portable(collect_provenance()),
    }
    meta = {**_portable(network.meta), "export": {"facts": facts, "not_fitted": not_fitted}}
    rounded = dataclasses.replace(rounded, meta=meta)
    card = model_card(rounded, facts, record)
    write_bundle(out, rounded, card=card, record=record, precision=precision, folder=folder)
    return parity


def _written_and_read(
    rounded: TrainedNetwork,
    live: TrainedNetwork,
    data: RunData | None,
    precision: str,
    batch_size: int,
) -> Parity:
    """Agreement of what a bundle gives back with the live network: a trial, thrown away."""
    with tempfile.TemporaryDirectory() as directory:
        trial = Path(directory, "trial.rcmnet")
        write_bundle(trial, rounded, card="", precision=precision)
        read_back = read_bundle(trial)
    return compare_logits(
        dataclasses.replace(live, temperature=rounded.temperature),
        logits_by_network(read_back, batch_size),
        data,
        what="bundle",
        batch_size=batch_size,
        # Rounding to half precision moves probabilities; by how much is measured and recorded.
        tolerance=TOLERANCE if precision == "float32" else None,
    )


def _portable(value: Any) -> Any:
    """The record without the folders of this machine: an absolute path becomes its last part."""
    if isinstance(value, Mapping):
        left_out = ("bundle", "platform")
        kept = {key: _portable(item) for key, item in value.items() if key not in left_out}
        # Where this machine keeps built data sets is of no use elsewhere, and no name for them.
        return kept | ({"data_dir": ""} if "data_dir" in kept else {})
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value
