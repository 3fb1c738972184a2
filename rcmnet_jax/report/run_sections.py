"""Sections about the run: provenance, data, network, and the model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rcmnet_jax.checkpoints.open_model import TrainedNetwork
from rcmnet_jax.checkpoints.provenance import collect_provenance
from rcmnet_jax.checkpoints.store import tree_sha256
from rcmnet_jax.data.audit import examine_thumbnails, thumbnail
from rcmnet_jax.evaluation.results import split_note
from rcmnet_jax.scoring.score import Scored


def provenance_section(restored: TrainedNetwork, scored: Scored, command: str) -> dict[str, Any]:
    """Hashes of data, split and weights, versions and devices of training and of now."""
    meta = restored.meta
    return {
        "data_sha256": scored.dataset.data_sha256,
        "split_sha256": meta["split"]["sha256"],
        "weights_sha256": tree_sha256(restored.variables),
        "step": restored.step,
        "trained_with": meta.get("provenance", {}),
        "scored_with": collect_provenance(),
        "command": command,
        "config": meta["config"],
        "seeds": {
            "weights, order and augmentation": meta["config"].get("seed"),
            "split": meta["split"].get("seed"),
            "bootstrap": 0,
        },
    }


def data_section(scored: Scored, pixels: Any, part_of: Mapping[str, str], split: str) -> dict:
    """The data set's audit, with near-duplicates and shortcuts, and its class balance.

    Args:
        scored: the images of the report.
        pixels: of the whole data set, at the network's size.
        part_of: part of each file.
        split: a description of those parts.
    """
    audit = scored.dataset.audit
    small = np.stack([thumbnail(np.asarray(pixels[np.array([i])])[0]) for i in range(len(pixels))])
    found = examine_thumbnails(audit, audit.kept, small, part_of, split)
    values = found.to_dict()
    names = scored.dataset.class_names
    records = scored.dataset.records
    part = np.array([part_of.get(file, "not used") for file in records.file])
    shown = [p for p in ("train", "val", "test", "external", "dropped", "not used") if p in part]
    balance = [
        {
            "class": name,
            "parts": [int(np.sum((part == p) & (records.label == k))) for p in shown],
        }
        for k, name in enumerate(names)
    ]
    return {
        "name": scored.dataset.name,
        "images": len(scored.dataset),
        "files_found": len(found.audit.rows),
        "synthetic": scored.dataset.synthetic,
        "verdict": values["verdict"],
        "findings": values["findings"],
        "probes": values["probes"],
        "parts": shown,
        "parts_told": split,
        "balance": balance,
    }


def run_section(restored: TrainedNetwork, workdir: Path, scored: Scored) -> dict[str, Any]:
    """Network, input, classes and split of the run."""
    meta, config = restored.meta, restored.meta["config"]
    return {
        "name": workdir.name,
        "model": config["model"]["name"],
        "parameters": int(
            sum(np.size(leaf) for leaf in jax.tree.leaves(restored.variables["params"]))
        ),
        "input": f"{restored.preprocess.height}x{restored.preprocess.width} pixels, RGB",
        "classes": list(restored.class_names),
        "best": meta.get("best"),
        "split": meta["split"],
        "split_note": split_note(scored.meta),
        "part": scored.part,
        "trained_on": meta["data"],
    }


def model_card(
    restored: TrainedNetwork, scored: Scored, content: Mapping[str, Any]
) -> dict[str, list]:
    """The model card (Mitchell et al. 2019) as headings and sentences, from the run's records."""
    recorded, run, data = restored.meta["config"], content["run"], content["data"]
    optim, train = recorded["optim"], recorded["train"]
    accuracy = content["scores"]["accuracy"]
    limits = [run["split_note"] + "."]
    if data["synthetic"]:
        limits.append("The images are drawn by a program; the scores say nothing about real cells.")
    if scored.part != "external":
        limits.append("Not tested on another laboratory; scores there are usually far lower.")
    worst = min(
        (row for row in content["scores"]["per_class"] if row["recall"]["value"] is not None),
        key=lambda row: row["recall"]["value"],
    )
    limits.append(
        f"Weakest class: {worst['name']}, recall {worst['recall']['k']}/{worst['recall']['n']}."
    )
    if data["verdict"] == "act":
        limits.append("The data audit asks for action: see its findings.")
    init = recorded.get("init", {}).get("checkpoint")
    return {
        "Model": [
            f"{run['model']}, {run['parameters']:,} parameters, input {run['input']}, output"
            f" {len(run['classes'])} classes: {', '.join(run['classes'])}.",
            f"Weights: {'from ' + str(init) if init else 'random'} at the start, step"
            f" {restored.step} of training, best by validation {_best(run)}.",
        ],
        "Intended use": [
            "Research on single-cell images like those it was trained on. Not a medical device; not"
            " for diagnosis.",
            "Not for images of other stains, microscopes or cell types.",
        ],
        "Training": [
            f"Data set {run['trained_on']['name']}, {run['trained_on']['images']} images, split"
            f" protocol {run['split']['protocol']} by {run['split']['level']}, seed"
            f" {run['split']['seed']}.",
            f"SGD, learning rate {optim['learning_rate']:g} ({optim['schedule']}), momentum"
            f" {optim['momentum']:g}, weight decay {optim['weight_decay']:g}, batch"
            f" {train['batch_size']}, {train['epochs']} epochs, views {recorded['data']['views']},"
            f" light {recorded['data']['light']:g}, stain {recorded['data']['stain']:g}.",
        ],
        "Evaluation": [
            f"{scored.part} part, {accuracy['n']} images: {accuracy['k']} correct. Wilson and"
            " percentile bootstrap intervals, 95 %; see the scores.",
        ],
        "Limitations": limits,
    }


def _best(run: Mapping[str, Any]) -> str:
    best = run["best"]
    if not best:
        return "(not recorded)"
    value = "" if best["value"] is None else f" ({best['value']:.4f})"
    return f"{best['metric']}{value}, epoch {best['epoch']}"
