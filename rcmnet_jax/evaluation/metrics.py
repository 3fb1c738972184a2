"""All scores of one model on one set of images, from labels and probabilities.

Without jax and matplotlib, so that a laptop with neither can score a predictions file. The rules
for undefined values and ties are in `rcmnet_jax.evaluation.scores`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.bootstrap import bootstrap
from rcmnet_jax.evaluation.calibration import BINS, expected_calibration_error
from rcmnet_jax.evaluation.checks import check_predictions
from rcmnet_jax.evaluation.intervals import Interval, Proportion
from rcmnet_jax.evaluation.scores import confusion_matrix as confusion_matrix
from rcmnet_jax.evaluation.text_tables import align, fraction_floor, percent_floor, show_range


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest; None where a score is 0/0."""

    name: str
    support: int
    """Images of the class."""
    predicted: int
    """Images taken for the class."""
    recall: Proportion
    precision: Proportion
    f1: float | None
    auc: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "support": self.support,
            "predicted": self.predicted,
            "recall": self.recall.to_dict(),
            "precision": self.precision.to_dict(),
            "f1": self.f1,
            "auc": self.auc,
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one model on one set of images."""

    class_names: tuple[str, ...]
    n: int
    groups: int | None
    """Number of patients or slides resampled whole; None where images were resampled."""
    confidence: float
    confusion: np.ndarray
    """(K, K) int64, rows true."""
    accuracy: Proportion
    top5: Proportion | None
    """None with five classes or fewer, where it is 100 % by construction."""
    accuracy_bootstrap: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    macro_auc: Interval
    nll: Interval
    brier: Interval
    ece_width: float
    """Expected calibration error, 15 bins of equal width."""
    ece_mass: float
    """Expected calibration error, 15 bins of about equal numbers."""
    per_class: tuple[ClassScores, ...]

    @property
    def note(self) -> str | None:
        """What the scores cannot show because the images are of one class; else None."""
        present = [c.name for c in self.per_class if c.support]
        if len(present) > 1:
            return None
        return (
            f"All images are {present[0]}: there is no AUC, balanced accuracy is the recall of this"
            " class, and precision and F1 say nothing without images of other classes."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: numbers stay numbers, undefined ones are None."""
        return {
            "class_names": list(self.class_names),
            "n": self.n,
            "groups": self.groups,
            "confidence": self.confidence,
            "classes_without_images": [c.name for c in self.per_class if not c.support],
            "note": self.note,
            "accuracy": self.accuracy.to_dict(),
            "top5": self.top5.to_dict() if self.top5 else None,
            "accuracy_bootstrap": self.accuracy_bootstrap.to_dict(),
            "balanced_accuracy": self.balanced_accuracy.to_dict(),
            "macro_f1": self.macro_f1.to_dict(),
            "macro_auc": self.macro_auc.to_dict(),
            "nll": self.nll.to_dict(),
            "brier": self.brier.to_dict(),
            "ece_width": self.ece_width,
            "ece_mass": self.ece_mass,
            "per_class": [c.to_dict() for c in self.per_class],
            "confusion": self.confusion.tolist(),
        }

    def table(self) -> str:
        """The scores for a terminal: counts, values and intervals, then a row for each class."""
        level = f"{100 * self.confidence:g} %"
        resampled = (
            f"bootstrap over {self.n} images"
            if self.groups is None
            else f"bootstrap over {self.groups} groups"
        )
        # With two classes each AUC equals the other, and their mean.
        two = len(self.class_names) == 2
        rows = [["", "value", "k/n", f"{level} interval", "method"]]
        rows.append(_proportion_row("accuracy", self.accuracy))
        if self.groups is not None:
            rows.append(_interval_row("accuracy", self.accuracy_bootstrap, resampled, percent=True))
        if self.top5 is not None:
            rows.append(_proportion_row("top-5 accuracy", self.top5))
        rows += [
            _interval_row("balanced accuracy", self.balanced_accuracy, resampled, percent=True),
            _interval_row("macro-F1", self.macro_f1, resampled, percent=True),
            _interval_row("AUC" if two else "macro AUC", self.macro_auc, resampled),
            _interval_row("NLL (nats)", self.nll, resampled),
            _interval_row("Brier (0 to 2)", self.brier, resampled),
            ["ECE, equal width", f"{self.ece_width:.4f}", "", "", f"{BINS} bins"],
            ["ECE, equal mass", f"{self.ece_mass:.4f}", "", "", f"up to {BINS} bins"],
        ]
        classes = [["class", "images", "recall", "k/n", level, "precision", "k/n", level, "F1"]]
        for c in self.per_class:
            both = [*_proportion_cells(c.recall), *_proportion_cells(c.precision)]
            classes.append([c.name, str(c.support), *both, fraction_floor(c.f1)])
        if not two:
            areas = [fraction_floor(c.auc) for c in self.per_class]
            classes = [[*r, a] for r, a in zip(classes, ["AUC", *areas], strict=True)]
        title = f"{self.n} images, {len(self.class_names)} classes"
        parts = [title, "", *align(rows), "", *align(classes)]
        if self.note:
            parts += ["", self.note]
        return "\n".join(parts)


def _proportion_cells(p: Proportion) -> list[str]:
    if p.value is None:
        return ["-", "0/0", "-"]
    return [percent_floor(p.value), f"{p.k}/{p.n}", show_range(p.low, p.high, percent=True)]


def _proportion_row(name: str, p: Proportion) -> list[str]:
    return [f"{name} (%)", *_proportion_cells(p), "Wilson"]


def _interval_row(name: str, i: Interval, method: str, *, percent: bool = False) -> list[str]:
    name = f"{name} (%)" if percent else name
    if i.value is None:
        return [name, "-", "", "-", "not defined for images of one class"]
    shown = percent_floor(i.value) if percent else f"{i.value:.4f}"
    return [name, shown, "", show_range(i.low, i.high, percent=percent), method]


def _per_class(
    confusion: np.ndarray, auc: np.ndarray, class_names: Sequence[str], confidence: float
) -> tuple[ClassScores, ...]:
    """The scores of each class from the confusion matrix and the AUC."""
    f1 = scores.f1(confusion)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassScores(
            name=str(name),
            support=int(support[k]),
            predicted=int(predicted[k]),
            recall=Proportion.of(confusion[k, k], support[k], confidence),
            precision=Proportion.of(confusion[k, k], predicted[k], confidence),
            f1=None if np.isnan(f1[k]) else float(f1[k]),
            auc=None if np.isnan(auc[k]) else float(auc[k]),
        )
        for k, name in enumerate(class_names)
    )


def evaluate_predictions(
    labels: Any,
    probabilities: Any,
    class_names: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Evaluation:
    """Score predictions.

    Accuracy, top-5, recall and precision are k/n with Wilson intervals; balanced accuracy,
    macro-F1, macro AUC, NLL and Brier score have percentile bootstrap intervals.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K) float, rows sum to 1.
        class_names: K distinct names, in the order of the columns.
        groups: patient or slide of each image; the bootstrap then resamples them whole. The Wilson
            intervals still take images as independent.
        samples: bootstrap resamples.
        seed: of the bootstrap.
        confidence: of all intervals, in (0, 1).

    Returns:
        The scores.

    Raises:
        DataError: shapes or counts disagree, or values are no probabilities.
        UserError: samples or confidence out of range.
    """
    labels, probabilities = check_predictions(labels, probabilities, class_names)
    count, num_classes = probabilities.shape
    confusion = confusion_matrix(labels, scores.predict(probabilities), num_classes)
    top5 = scores.top_k_correct(labels, probabilities, 5).sum() if num_classes > 5 else None
    auc = scores.one_vs_rest_auc(labels, probabilities)

    interval = partial(bootstrap, groups=groups, samples=samples, seed=seed, confidence=confidence)
    return Evaluation(
        class_names=tuple(map(str, class_names)),
        n=count,
        groups=None if groups is None else len(set(map(str, groups))),
        confidence=confidence,
        confusion=confusion,
        accuracy=Proportion.of(np.trace(confusion), count, confidence),
        top5=None if top5 is None else Proportion.of(top5, count, confidence),
        accuracy_bootstrap=interval(labels, probabilities, "accuracy"),
        balanced_accuracy=interval(labels, probabilities, "balanced_accuracy"),
        macro_f1=interval(labels, probabilities, "macro_f1"),
        macro_auc=interval(labels, probabilities, "macro_auc"),
        nll=interval(labels, probabilities, "nll"),
        brier=interval(labels, probabilities, "brier"),
        ece_width=expected_calibration_error(labels, probabilities, BINS, "width"),
        ece_mass=expected_calibration_error(labels, probabilities, BINS, "mass"),
        per_class=_per_class(confusion, auc, class_names, confidence),
    )
