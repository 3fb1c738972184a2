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
from rcmnet_jax.export.run_data import RunData
from rcmnet_jax.inference import BatchedPass, Outputs, TrainedNetwork, logits_features_colours
from rcmnet_jax.inference.gate import ACCEPT, STATUSES, fit_gate


def calibrate(
    network: TrainedNetwork, data: RunData, *, batch_size: int = 64
) -> tuple[TrainedNetwork, dict[str, Any]]:
    """The network with its temperature and gate, and what they do to the parts.

    Statistics are of the training part, temperature and thresholds of the validation part; the
    test part is looked at once, to tell how many of its images stay accepted.

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
    # Where every image is right the best temperature is zero: that is no evidence of certainty.
    all_right = bool((val.logits.argmax(axis=1) == labels).all())
    temperature = 1.0 if all_right else fit_temperature(val.logits, labels)
    probabilities = apply_temperature(val.logits, temperature)
    gate = fit_gate(
        train=(train.features, train.colours, data.labels("train")),
        val=(val.features, val.colours),
        val_confidence=probabilities.max(axis=1),
        val_correct=probabilities.argmax(axis=1) == labels,
    )
    fitted = dataclasses.replace(network, temperature=temperature, gate=gate)
    facts: dict[str, Any] = {"val": _facts(fitted, val, labels)}
    if len(data.rows("test")):
        test = outputs_of(network.variables, data.pixels, data.rows("test"))
        facts["test"] = _facts(fitted, test, data.labels("test"))
    return fitted, facts


def _facts(network: TrainedNetwork, outputs: Outputs, labels: np.ndarray) -> dict[str, Any]:
    """Counts of a part by status, and its calibration error before and after."""
    assert network.temperature is not None
    assert network.gate is not None
    before = apply_temperature(outputs.logits, 1.0)
    after = apply_temperature(outputs.logits, network.temperature)
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
