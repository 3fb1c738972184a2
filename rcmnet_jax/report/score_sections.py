"""Sections about the scores, computed from predictions alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.bootstrap import bootstrap, class_intervals
from rcmnet_jax.evaluation.calibration import apply_temperature, fit_temperature
from rcmnet_jax.evaluation.comparison import compare
from rcmnet_jax.evaluation.intervals import Proportion
from rcmnet_jax.evaluation.metrics import evaluate_predictions
from rcmnet_jax.evaluation.predictions import Predictions, read_predictions
from rcmnet_jax.evaluation.selective import review_at_budget, risk_coverage
from rcmnet_jax.evaluation.subgroups import subgroup_table
from rcmnet_jax.scoring.score import Scored


def score_section(scored: Scored, class_names: Sequence[str], samples: int) -> dict[str, Any]:
    """Every score with its interval, and the confusion matrix."""
    labels, probabilities = scored.labels, scored.probabilities
    values = evaluate_predictions(
        labels, probabilities, class_names, groups=scored.groups, samples=samples
    ).to_dict()
    more = class_intervals(labels, probabilities, groups=scored.groups, samples=samples)
    for row, intervals in zip(values["per_class"], more, strict=True):
        row["f1_interval"] = intervals.f1.to_dict()
        row["auc_interval"] = intervals.auc.to_dict()
    ece = bootstrap(labels, probabilities, "ece", groups=scored.groups, samples=samples)
    return {**values, "ece_interval": ece.to_dict(), "bootstrap_samples": samples}


def calibration_section(
    scored: Scored, validation: Scored | None, samples: int
) -> dict[str, Any] | None:
    """The scores of the probabilities before and after a temperature fitted on validation images.

    None where the run has no validation part: a fit on the test part would flatter. With too few
    validation images the temperature and the scores after it are None, with the reason.
    """
    if validation is None:
        return None
    fit = fit_temperature(validation.logits, validation.labels)
    after = None
    if fit.temperature is not None:
        probabilities = apply_temperature(scored.logits, fit.temperature)
        after = _probability_scores(scored, probabilities, samples)
    return {
        "temperature": fit.temperature,
        "reason": fit.reason,
        "fitted_on": f"{len(validation.rows)} validation images of the run",
        "before": _probability_scores(scored, scored.probabilities, samples),
        "after": after,
    }


def _probability_scores(scored: Scored, probabilities: np.ndarray, samples: int) -> dict[str, Any]:
    common: dict[str, Any] = {"groups": scored.groups, "samples": samples}
    return {
        "ece": bootstrap(scored.labels, probabilities, "ece", **common).to_dict(),
        "nll": bootstrap(scored.labels, probabilities, "nll", **common).to_dict(),
        "brier": bootstrap(scored.labels, probabilities, "brier", **common).to_dict(),
        "mean_confidence": float(probabilities.max(axis=1).mean()),
    }


def review_section(scored: Scored, validation: Scored | None, budget: float) -> dict[str, Any]:
    """The risk-coverage curve, and the errors that each review budget catches, the chosen first."""
    probabilities = scored.probabilities
    source = scored if validation is None else validation
    chosen_on = f"the {source.part} part itself" if validation is None else "the validation part"
    common: dict[str, Any] = {"validation": source.probabilities, "chosen_on": chosen_on}
    rows = [
        review_at_budget(scored.labels, probabilities, share, **common).to_dict()
        for share in dict.fromkeys((budget, 0.01, 0.02, 0.05, 0.1, 0.2))
    ]
    return {"curve": risk_coverage(scored.labels, probabilities).to_dict(), "budgets": rows}


def error_list(scored: Scored, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Every wrongly classified image, the most confident error first."""
    probabilities = scored.probabilities
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != scored.labels)
    files = scored.files
    return [
        {
            "file": files[i],
            "position": int(i),
            "label": class_names[scored.labels[i]],
            "predicted": class_names[predicted[i]],
            "probability": float(confidence[i]),
            "probability_of_label": float(probabilities[i, scored.labels[i]]),
        }
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")]
    ]


def subgroup_section(
    scored: Scored, columns: Mapping[str, list[str]], samples: int
) -> dict[str, Any]:
    """A table for each column that divides the images, and the columns left out."""
    tables, left_out = {}, []
    for name, values in columns.items():
        rows = subgroup_table(
            scored.labels, scored.probabilities, values, groups=scored.groups, samples=samples
        )
        if rows is None:
            left_out.append(f"{name} ({len(set(values))} values)")
        else:
            tables[name] = [row.to_dict() for row in rows]
    return {"tables": tables, "left_out": left_out}


def comparison_section(
    scored: Scored, class_names: tuple[str, ...], here: str, other: Path, samples: int
) -> dict[str, Any]:
    """This run against another on the same images; differences are this minus the other.

    Raises:
        DataError: the other run was scored on other images.
    """
    records = scored.dataset.records
    mine = Predictions.of(
        scored.labels,
        scored.probabilities,
        files=scored.files,
        sha256=records.sha256[scored.rows].tolist(),
        class_names=class_names,
    )
    theirs = _predictions_of(other, scored.part)
    comparison = compare(
        theirs, mine, names=(other.name, here), groups=_matched(scored, theirs), samples=samples
    )
    return {**comparison.to_dict(), "table": comparison.table()}


def _matched(scored: Scored, other: Predictions) -> list[str] | None:
    """The groups in the order of the other run's files; `compare` refuses missing images."""
    if scored.groups is None:
        return None
    of_file = dict(zip(scored.files, scored.groups, strict=True))
    return [of_file.get(file, "?") for file in other.files]


def seed_section(here: str, scored: Scored, others: Sequence[Path]) -> dict[str, Any]:
    """Accuracy of this run and of others that differ in their seed, with mean and spread."""
    right = int((scored.probabilities.argmax(axis=1) == scored.labels).sum())
    rows: list[dict[str, Any]] = [
        {"run": here, "accuracy": Proportion.of(right, len(scored.labels)).to_dict()}
    ]
    for path in others:
        predictions = _predictions_of(path, scored.part)
        if set(predictions.files) != set(scored.files):
            raise UserError(f"{path} was scored on other images: seeds compare on the same ones")
        k = int((predictions.predicted == predictions.labels).sum())
        accuracy = Proportion.of(k, len(predictions.labels))
        rows.append({"run": path.name, "accuracy": accuracy.to_dict()})
    values = [row["accuracy"]["value"] for row in rows]
    return {
        "runs": rows,
        "mean": float(np.mean(values)),
        "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def _predictions_of(path: Path, part: str) -> Predictions:
    return read_predictions(path / f"{part}_predictions.csv" if path.is_dir() else path)
