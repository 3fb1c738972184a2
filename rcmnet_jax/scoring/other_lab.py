"""A trained network scored on the images of another laboratory, with each label-free adaptation."""

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
from rcmnet_jax.evaluation.bootstrap import bootstrap
from rcmnet_jax.evaluation.calibration import apply_temperature, fit_temperature
from rcmnet_jax.evaluation.intervals import Proportion
from rcmnet_jax.evaluation.shift import colour_shift, domain_auc, restrict
from rcmnet_jax.evaluation.text_tables import align, percent_floor, show_range
from rcmnet_jax.inference import BatchedPass, mean_features
from rcmnet_jax.scoring.adaptations import AdaptedPredictor, Choice, combination_name
from rcmnet_jax.scoring.run_data import RunData
from rcmnet_jax.scoring.score import Scored, score_part, scored_as_other

# Home images that colours and cell sizes are compared with.
_HOME_SAMPLE = 800


@dataclasses.dataclass(frozen=True, eq=False)
class OtherLabScores:
    """Scores of one set, by combination of adaptations.

    Attributes:
      scored: the images with the chosen combination.
      rows: one entry a combination, JSON-ready.
      choice: how the combination was chosen; None where the first one counts.
      shift: label-free measures of the distance from home, JSON-ready.
      classes: names of the network's classes that the set has.
      pixels: (N, H, W, 3) uint8 of the scored images' data set.
      note: why no error under the home temperature is given, or None.
    """

    scored: Scored
    rows: list[dict[str, Any]]
    choice: Choice | None
    shift: dict[str, Any]
    classes: tuple[str, ...]
    pixels: np.ndarray
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "classes": list(self.classes),
            "options": self.rows,
            "choice": None if self.choice is None else self.choice.to_dict(),
            "shift": self.shift,
            "home_temperature_note": self.note,
        }

    def table(self) -> str:
        """For a terminal."""
        head = ["adaptation", "balanced (%)", "95 %", "forced (%)", "95 %", "accuracy", "ECE", ""]
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
        text = [
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
            text.append(
                f"chosen on {self.choice.images} home validation images under"
                f" {self.choice.draws} distortions, without any label of the other lab"
            )
        if len(self.classes) == 1:
            text.append(
                "one class only: forced answers are right by construction, and balanced accuracy is"
                " the recall of this class"
            )
        return "\n".join(text)


def score_other_lab(
    home: RunData,
    source: str,
    class_map: Path,
    *,
    combinations: Sequence[tuple[str, ...]],
    draws: int = 2,
    batch_size: int = 64,
    samples: int = 2000,
) -> OtherLabScores:
    """Scores another laboratory's images with each combination of adaptations.

    Args:
      home: the network with the images it was trained on, for alignment, temperature and choice.
      source: folder, zip or manifest of the other images.
      class_map: CSV, see `rcmnet_jax.data.class_map`.
      combinations: tuples of `rcmnet_jax.scoring.adaptations.ADAPTATIONS`; the first counts as
        chosen where nothing is chosen.
      draws: distortions of home images to choose on; 0 chooses nothing.
      batch_size: images a call.
      samples: bootstrap resamples.

    Raises:
      DataError: a map that does not fit, or images that cannot be used.
    """
    network = home.network
    dataset = prepare_dataset("cell_folder", source, home.data_dir, min_classes=1)
    mapped = read_class_map(class_map, dataset.class_names, network.class_names)
    ours = np.array(
        [
            -1 if name is None else network.class_names.index(name)
            for name in (mapped[label] for label in dataset.class_names)
        ]
    )
    rows = np.flatnonzero(ours[dataset.records.label] >= 0)
    labels = ours[dataset.records.label][rows]
    pixels = load_pixels(dataset, network.preprocess, data_dir=home.data_dir)
    present = sorted(set(labels.tolist()))
    lab = AdaptedPredictor(network, _home_sample(home), batch_size=batch_size)
    validation = score_part(home, "val", batch_size=batch_size) if len(home.rows("val")) else None
    same_classes = _of_classes(validation, present)
    choice = None
    if draws and same_classes is not None:
        at_home = home.pixels[same_classes.rows]
        choice = lab.choose(at_home, same_classes.labels, combinations, draws=draws)
    images = pixels[rows]
    answers = lab.probabilities(images, combinations)
    chosen = choice.chosen if choice is not None else tuple(combinations[0])
    temperature, note = _home_temperature(validation)
    scored = scored_as_other(network, dataset, rows, labels, _logits_of(answers[chosen]), source)
    table = [
        _row(combination, chosen, scored, p, present, temperature, samples)
        for combination, p in answers.items()
    ]
    shift = _shift(home, lab, same_classes, images, answers, present, batch_size)
    names = tuple(network.class_names[k] for k in present)
    return OtherLabScores(scored, table, choice, shift, names, pixels, note)


def _home_sample(home: RunData) -> np.ndarray:
    train = home.rows("train")
    count = min(_HOME_SAMPLE, len(train))
    return home.pixels[np.sort(np.random.default_rng(0).choice(train, count, replace=False))]


def _of_classes(validation: Scored | None, classes: Sequence[int]) -> Scored | None:
    """The home validation images of the classes that the other set has; None without any."""
    if validation is None:
        return None
    keep = np.isin(validation.labels, classes)
    if not keep.any():
        return None
    return dataclasses.replace(
        validation,
        rows=validation.rows[keep],
        labels=validation.labels[keep],
        logits=validation.logits[keep],
        groups=None,
    )


def _home_temperature(validation: Scored | None) -> tuple[float | None, str | None]:
    """The temperature fitted at home, or None with the reason."""
    if validation is None:
        return None, "the run has no validation part to fit a temperature on"
    fit = fit_temperature(validation.logits, validation.labels)
    return fit.temperature, fit.reason


def _logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits whose softmax the probabilities are; averaged ones have none of their own."""
    return np.log(np.maximum(probabilities, 1e-30))


def _row(
    combination: tuple[str, ...],
    chosen: tuple[str, ...],
    scored: Scored,
    probabilities: np.ndarray,
    present: Sequence[int],
    temperature: float | None,
    samples: int,
) -> dict[str, Any]:
    """The scores of one combination."""
    labels, forced = scored.labels, restrict(probabilities, present)
    common: dict[str, Any] = {"groups": scored.groups, "samples": samples}
    row = {
        "option": combination_name(combination),
        "chosen": combination == chosen,
        "accuracy": _accuracy(labels, probabilities),
        "forced_accuracy": _accuracy(labels, forced),
        "ece": bootstrap(labels, probabilities, "ece", **common).to_dict(),
        "answers_among_the_classes": float(np.isin(probabilities.argmax(axis=1), present).mean()),
        "ece_with_home_temperature": None,
    }
    for name, p in (("balanced_accuracy", probabilities), ("forced_balanced_accuracy", forced)):
        row[name] = bootstrap(labels, p, "balanced_accuracy", **common).to_dict()
    if temperature is not None:
        cooled = apply_temperature(_logits_of(probabilities), temperature)
        row["ece_with_home_temperature"] = bootstrap(labels, cooled, "ece", **common).to_dict()
    return row


def _accuracy(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    right = int((probabilities.argmax(axis=1) == labels).sum())
    return Proportion.of(right, len(labels)).to_dict()


def _shift(
    home: RunData,
    lab: AdaptedPredictor,
    same_classes: Scored | None,
    images: np.ndarray,
    answers: dict[tuple[str, ...], np.ndarray],
    present: Sequence[int],
    batch_size: int,
) -> dict[str, Any]:
    """How far the set is from home, without its labels."""
    network = home.network
    plain = answers[()] if () in answers else lab.probabilities(images, [()])[()]
    here = same_classes.rows if same_classes is not None else home.rows("train")[:_HOME_SAMPLE]
    at_home = home.pixels[here]
    features = BatchedPass.of(network, mean_features, batch_size=batch_size)
    return {
        "colour": colour_shift(
            (np.asarray(network.mean), np.asarray(network.std)),
            channel_statistics(images, np.arange(len(images))),
        ),
        "nucleus_share": nucleus_share(images),
        "home_nucleus_share": nucleus_share(lab.home),
        "mean_confidence": float(plain.max(axis=1).mean()),
        "home_mean_confidence": float(lab.probabilities(at_home, [()])[()].max(axis=1).mean()),
        "answers_among_the_classes": float(np.isin(plain.argmax(axis=1), present).mean()),
        "domain_auc": domain_auc(
            *(features(network.variables, pixels) for pixels in (at_home, images))
        ),
    }
