"""Pictures of a report: plots, thumbnails by cell of the confusion matrix, and Grad-CAM."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from rcmnet_jax.checkpoints.open_model import TrainedNetwork
from rcmnet_jax.data.preprocess import Preprocess, decode_image
from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.calibration import apply_temperature
from rcmnet_jax.evaluation.plots import (
    plot_per_class,
    plot_reliability,
    plot_risk_coverage,
)
from rcmnet_jax.evaluation.training_curves import plot_curves
from rcmnet_jax.explain import class_maps, layer_grid
from rcmnet_jax.explain.map_layers import deepest_layer
from rcmnet_jax.explain.overlay import overlay
from rcmnet_jax.html import image_uri, png_uri
from rcmnet_jax.scoring.score import Scored
from rcmnet_jax.training.log import read_rows

THUMB = 96
SHOWN = 176
# Thumbnails in a cell of the confusion matrix.
_RIGHT_SHOWN = 12
_ERRORS_SHOWN = 60


def draw_plots(
    scored: Scored, class_names: Sequence[str], workdir: Path, content: Mapping[str, Any]
) -> dict[str, str]:
    """The plots as data URIs by name; those without data are left out."""
    synthetic = scored.dataset.synthetic
    labels, probabilities = scored.labels, scored.probabilities
    confusion = np.array(content["scores"]["confusion"])
    uris: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        plot_per_class(confusion, class_names, path, synthetic=synthetic)
        uris["per_class"] = png_uri(path)
        plot_reliability(labels, probabilities, path, synthetic=synthetic)
        uris["reliability_before"] = png_uri(path)
        if content["calibration"] and content["calibration"]["temperature"] is not None:
            after = apply_temperature(scored.logits, content["calibration"]["temperature"])
            plot_reliability(labels, after, path, synthetic=synthetic)
            uris["reliability_after"] = png_uri(path)
        reviewed = content["review"]["budgets"][0]["reviewed"]
        accepted = None if reviewed is None else 1 - reviewed["value"]
        plot_risk_coverage(labels, probabilities, path, chosen=accepted, synthetic=synthetic)
        uris["risk_coverage"] = png_uri(path)
        rows = [r for r in read_rows(workdir / "metrics.jsonl") if r["kind"] == "epoch"]
        try:
            plot_curves(rows, path, synthetic=synthetic)
            uris["curves"] = png_uri(path)
        except DataError:
            pass  # The run's log is missing; the page says so.
    return uris


def matrix_cells(scored: Scored, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The images behind each filled cell of the confusion matrix, the most telling first."""
    probabilities = scored.probabilities
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    files = scored.files
    cells = []
    for true in range(len(class_names)):
        for taken in range(len(class_names)):
            here = np.flatnonzero((scored.labels == true) & (predicted == taken))
            if not len(here):
                continue
            right = true == taken
            # Confident errors and unsure correct answers are the ones to look at.
            order = here[np.argsort(confidence[here] * (1 if right else -1), kind="stable")]
            shown = order[: _RIGHT_SHOWN if right else _ERRORS_SHOWN]
            cells.append(
                {
                    "id": f"cell-{true}-{taken}",
                    "right": right,
                    "true": class_names[true],
                    "predicted": class_names[taken],
                    "count": len(here),
                    "images": [
                        {
                            "uri": image_uri(_decoded(scored, i, THUMB), quality=80),
                            "file": files[i],
                            "probability": float(confidence[i]),
                        }
                        for i in shown
                    ],
                }
            )
    return cells


def worst_errors(
    restored: TrainedNetwork, scored: Scored, pixels: Any, errors: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """Errors with Grad-CAM of the predicted and of the true class.

    Returns:
        For each error its entry with three data URIs; and the layer with the size of its map.
    """
    if not errors:
        return [], ""
    positions = [error["position"] for error in errors]
    images = np.asarray(pixels[scored.rows[positions]])
    x = restored.standardize(images)
    layer = deepest_layer(restored.model, restored.variables, images.shape[1:3])
    grid = layer_grid(restored.model, layer)
    index = {name: k for k, name in enumerate(restored.class_names)}
    overlays, empty, size = [], [], ""
    for key in ("predicted", "label"):
        ids = jnp.asarray([index[error[key]] for error in errors])
        maps = np.asarray(class_maps(restored.model, restored.variables, x, ids, layer=layer)[0])
        size = f"{layer or 'last'} map, {maps.shape[1]}x{maps.shape[2]}"
        # A map without evidence for the class is dark everywhere; the caption says so.
        empty.append([not cam.max() > 0 for cam in maps])
        overlays.append(
            [overlay(image, cam, grid=grid) for image, cam in zip(images, maps, strict=True)]
        )
    return [
        {
            **error,
            "image": image_uri(_decoded(scored, error["position"], SHOWN)),
            "cam_predicted": image_uri(_enlarged(of_predicted)),
            "cam_label": image_uri(_enlarged(of_label)),
            "predicted_empty": bool(nothing[0]),
            "label_empty": bool(nothing[1]),
        }
        for error, of_predicted, of_label, nothing in zip(
            errors, *overlays, zip(*empty, strict=True), strict=True
        )
    ], size


def _decoded(scored: Scored, position: int, side: int) -> np.ndarray:
    """An image decoded from its file at a size for people."""
    return decode_image(scored.dataset.read(scored.rows[position]), Preprocess(side, side))


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    size = (SHOWN, SHOWN)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
