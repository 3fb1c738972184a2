"""Fits the temperature and the gate of a network on its own images."""

import dataclasses
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
)
from rcmnet_jax.evaluation.minimums import GATE_IMAGES, shortage
from rcmnet_jax.inference import BatchedPass, Outputs, TrainedNetwork, logits_features_colours
from rcmnet_jax.inference.gate import ACCEPT, REVIEW, STATUSES, fit_gate
from rcmnet_jax.scoring.run_data import RunData


def calibrate(
    network: TrainedNetwork, data: RunData, *, batch_size: int = 64
) -> tuple[TrainedNetwork, dict[str, Any], list[str]]:
    """The network with its temperature and gate, what they do to the parts, and what is missing.

    Statistics are of the training part, temperature and thresholds of the validation part; the
    test part is used once, to count how many of its images stay accepted. From too few
    validation images neither is fitted; the last result then says why, one sentence each.

    Args:
      network: the network, of a run.
      data: its images.
      batch_size: images a call.

    Raises:
      DataError: the split has no validation part.
    """
    if not len(data.rows("val")):
        raise DataError("the split of this run has no validation part to fit on")
    outputs_of = BatchedPass.of(network, logits_features_colours, batch_size=batch_size)
    train, val = (
        outputs_of(network.variables, data.pixels, data.rows(part)) for part in ("train", "val")
    )
    labels = data.labels("val")
    fit, gate = fit_temperature(val.logits, labels), None
    no_gate = shortage("a gate", len(labels), GATE_IMAGES)
    if not no_gate:
        probabilities = apply_temperature(val.logits, fit.temperature or 1.0)
        gate = fit_gate(
            train=(train.features, train.colours, data.labels("train")),
            val=(val.features, val.colours),
            val_confidence=probabilities.max(axis=1),
            val_correct=probabilities.argmax(axis=1) == labels,
        )
    no_temperature = fit.reason if fit.temperature is None else None
    fitted = dataclasses.replace(network, temperature=fit.temperature, gate=gate)
    facts: dict[str, Any] = {"val": _facts(fitted, val, labels)}
    if len(data.rows("test")):
        test = outputs_of(network.variables, data.pixels, data.rows("test"))
        facts["test"] = _facts(fitted, test, data.labels("test"))
    return fitted, facts, [reason for reason in (no_temperature, no_gate) if reason]


def _facts(network: TrainedNetwork, outputs: Outputs, labels: np.ndarray) -> dict[str, Any]:
    """Counts of a part by status, and its calibration error before and after.

    Without a gate every image is for review.
    """
    before = apply_temperature(outputs.logits, 1.0)
    after = apply_temperature(outputs.logits, network.temperature or 1.0)
    status = np.full(len(labels), REVIEW)
    if network.gate is not None:
        score = network.gate.score(outputs.features, outputs.colours)
        status = network.gate.status(score, after.max(axis=1), outputs.contrasts)
    right = after.argmax(axis=1) == labels
    return {
        "images": len(labels),
        "correct": int(right.sum()),
        "status": {name: int((status == name).sum()) for name in STATUSES},
        "accepted_correct": int(right[status == ACCEPT].sum()),
        "ece": {
            "before": expected_calibration_error(labels, before),
            "after": expected_calibration_error(labels, after),
        },
    }
