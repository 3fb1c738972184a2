"""A checkpoint on images of another laboratory: scores with each option, calibration and shift."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.data.alignment import nucleus_share
from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.class_map import read_class_map
from rcmnet_jax.data.dataset import prepare_dataset
from rcmnet_jax.data.statistics import channel_statistics
from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.calibration import apply_temperature, fit_temperature
from rcmnet_jax.evaluation.class_intervals import ece_interval
from rcmnet_jax.evaluation.intervals import Proportion, bootstrap
from rcmnet_jax.evaluation.metrics import align, percent_floor, show_range
from rcmnet_jax.evaluation.shift import colour_shift, domain_auc, restrict
from rcmnet_jax.inference import BatchedPass, TrainedNetwork, mean_features
from rcmnet_jax.scoring.adaptations import Choice, OtherLab, option_name
from rcmnet_jax.scoring.run import HomeImages, Scored, external_scored

# Home images that colours and cell sizes are compared with.
_HOME_SAMPLE = 800


@dataclasses.dataclass(frozen=True, eq=False)
class External:
    """Scores of one set, by option.

    Attributes:
      scored: the images with the chosen option (plain where none was chosen).
      rows: one entry an option, JSON-ready.
      choice: how the option was chosen, or None.
      shift: label-free measures, JSON-ready.
      classes: names of the network's classes that the set has.
      pixels: (N, H, W, 3) uint8 of the scored images' data set.
    """

    scored: Scored
    rows: list[dict[str, Any]]
    choice: Choice | None
    shift: dict[str, Any]
    classes: tuple[str, ...]
    pixels: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "classes": list(self.classes),
            "options": self.rows,
            "choice": None if self.choice is None else self.choice.to_dict(),
            "shift": self.shift,
        }

    def table(self) -> str:
        """For a terminal."""
        head = ["option", "balanced (%)", "95 %", "forced (%)", "95 %", "accuracy", "ECE", ""]
        lines = [head]
        for row in self.rows:
            free, forced, k = row["balanced_accuracy"], row["forced_balanced_accuracy"], row
            lines.append(
                [
                    row["option"],
                    percent_floor(free["value"]),
                    show_range(free["low"], free["high"], percent=True),
                    percent_floor(forced["value"]),
                    show_range(forced["low"], forced["high"], percent=True),
                    f"{k['accuracy']['k']}/{k['accuracy']['n']}",
                    f"{row['ece']['value']:.3f}",
                    "chosen" if row["chosen"] else "",
                ]
            )
        shift = self.shift
        told = [
            f"{len(self.scored.rows)} images of {', '.join(self.classes)};"
            " forced: no other class may be answered",
            "",
            *align(lines),
            "",
            f"mean confidence {100 * shift['mean_confidence']:.1f} %, at home"
            f" {100 * shift['home_mean_confidence']:.1f} %; features tell the labs apart with AUC"
            f" {shift['domain_auc']:.3f}",
            f"nuclei fill {100 * shift['nucleus_share']:.1f} % of the frame, at home"
            f" {100 * shift['home_nucleus_share']:.1f} %",
        ]
        if self.choice is not None:
            told.append(
                f"chosen on {self.choice.images} home validation images under"
                f" {self.choice.draws} distortions, without any label of the other lab"
            )
        return "\n".join(told)


def score_external(
    restored: TrainedNetwork,
    home: HomeImages,
    source: str,
    class_map: Path,
    *,
    options: Sequence[tuple[str, ...]],
    draws: int = 2,
    data_dir: str | None = None,
    batch_size: int = 64,
    samples: int = 2000,
) -> External:
    """Scores another laboratory's images with each option.

    Args:
      restored: the network.
      home: the images it was trained on, for alignment, temperature and the choice.
      source: folder, zip or manifest of the other images.
      class_map: CSV, see `rcmnet_jax.data.class_map`.
      options: tuples of `rcmnet_jax.scoring.adaptations.MEANS`; the first counts as chosen where
        nothing is chosen.
      draws: distortions of home images to choose on; 0 chooses nothing.
      data_dir: where built data sets are kept.
      batch_size: images a call.
      samples: bootstrap resamples.

    Raises:
      DataError: a map that does not fit, or images that cannot be used.
    """
    dataset = prepare_dataset("cell_folder", source, data_dir)
    mapped = read_class_map(class_map, dataset.class_names, restored.class_names)
    ours = np.array(
        [
            -1 if name is None else restored.class_names.index(name)
            for name in (mapped[label] for label in dataset.class_names)
        ]
    )
    rows = np.flatnonzero(ours[dataset.records.label] >= 0)
    labels = ours[dataset.records.label][rows]
    pixels = load_pixels(dataset, restored.preprocess, data_dir=data_dir)
    present = sorted(set(labels.tolist()))
    lab = OtherLab(restored, _home_sample(home), batch_size=batch_size)
    validation, choice = _home_validation(home, present), None
    if draws and validation is not None:
        choice = lab.choose(home.pixels[validation.rows], validation.labels, options, draws=draws)
    images = pixels[rows]
    answers = lab.probabilities(images, options)
    chosen = choice.chosen if choice is not None else tuple(options[0])
    temperature = _temperature(home)
    scored = external_scored(restored, dataset, rows, labels, _logits(answers[chosen]), source)
    table = [
        _row(option, chosen, scored, p, present, temperature, samples)
        for option, p in answers.items()
    ]
    shift = _shift(restored, lab, home, validation, images, answers, present)
    names = tuple(restored.class_names[k] for k in present)
    return External(scored, table, choice, shift, names, pixels)


def _home_sample(home: HomeImages) -> np.ndarray:
    train = home.split.indices("train")
    count = min(_HOME_SAMPLE, len(train))
    return home.pixels[np.sort(np.random.default_rng(0).choice(train, count, replace=False))]


def _home_validation(home: HomeImages, classes: Sequence[int]) -> Scored | None:
    """Validation images of the classes that the other set has, as a scored part."""
    if not len(home.split.indices("val")):
        return None
    scored = home.score("val")
    keep = np.isin(scored.labels, classes)
    if not keep.any():
        return None
    return dataclasses.replace(
        scored,
        rows=scored.rows[keep],
        labels=scored.labels[keep],
        logits=scored.logits[keep],
        groups=None,
    )


def _temperature(home: HomeImages) -> float | None:
    try:
        validation = home.score("val")
    except DataError:
        return None
    return fit_temperature(validation.logits, validation.labels)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Averaged probabilities have no logits of their own; any whose softmax they are will do."""
    return np.log(np.maximum(probabilities, 1e-30))


def _row(
    option: tuple[str, ...],
    chosen: tuple[str, ...],
    scored: Scored,
    probabilities: np.ndarray,
    present: Sequence[int],
    temperature: float | None,
    samples: int,
) -> dict[str, Any]:
    """The scores of one option."""
    labels, forced = scored.labels, restrict(probabilities, present)
    common: dict[str, Any] = {"groups": scored.groups, "samples": samples}
    row = {
        "option": option_name(option),
        "chosen": option == chosen,
        "accuracy": _accuracy(labels, probabilities),
        "forced_accuracy": _accuracy(labels, forced),
        "ece": ece_interval(labels, probabilities, **common).to_dict(),
        "answers_among_the_classes": float(np.isin(probabilities.argmax(axis=1), present).mean()),
        "ece_with_home_temperature": None,
    }
    for name, p in (("balanced_accuracy", probabilities), ("forced_balanced_accuracy", forced)):
        row[name] = bootstrap(labels, p, "balanced_accuracy", **common).to_dict()
    if temperature is not None:
        cooled = apply_temperature(_logits(probabilities), temperature)
        row["ece_with_home_temperature"] = ece_interval(labels, cooled, **common).to_dict()
    return row


def _accuracy(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    right = int((probabilities.argmax(axis=1) == labels).sum())
    return Proportion.of(right, len(labels)).to_dict()


def _shift(
    restored: TrainedNetwork,
    lab: OtherLab,
    home: HomeImages,
    validation: Scored | None,
    images: np.ndarray,
    answers: dict[tuple[str, ...], np.ndarray],
    present: Sequence[int],
) -> dict[str, Any]:
    """How far away the set is, without its labels."""
    plain = answers[()] if () in answers else lab.probabilities(images, [()])[()]
    sample = lab.home
    here = validation.rows if validation is not None else home.split.indices("train")[:_HOME_SAMPLE]
    at_home = home.pixels[here]
    other = channel_statistics(images, np.arange(len(images)))
    features = BatchedPass.of(restored, mean_features)
    means = (np.asarray(restored.mean), np.asarray(restored.std))
    return {
        "colour": colour_shift(means, other),
        "nucleus_share": nucleus_share(images),
        "home_nucleus_share": nucleus_share(sample),
        "mean_confidence": float(plain.max(axis=1).mean()),
        "home_mean_confidence": float(lab.probabilities(at_home, [()])[()].max(axis=1).mean()),
        "answers_among_the_classes": float(np.isin(plain.argmax(axis=1), present).mean()),
        "domain_auc": domain_auc(
            *(features(restored.variables, pixels) for pixels in (at_home, images))
        ),
    }
