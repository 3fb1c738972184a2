"""One call of ``rcmnet explain``, from work directories and images to what it leaves."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.checkpoints.open_model import TrainedNetwork, load_run
from rcmnet_jax.evaluation.results import write_json
from rcmnet_jax.explain.boxes import BoxTable, read_boxes
from rcmnet_jax.explain.explainer import Explainer
from rcmnet_jax.explain.images import (
    CellImage,
    ReadImages,
    Reference,
    choose,
    find_images,
    read_images,
)
from rcmnet_jax.explain.localisation import compare_localisation
from rcmnet_jax.explain.map_scores import (
    faithfulness_scores,
    localisation_of,
    localisation_scores,
    randomisation_scores,
)
from rcmnet_jax.explain.output import unique_names, write_explanation
from rcmnet_jax.explain.run_maps import RunMaps, class_id, explain_run, untrained
from rcmnet_jax.scoring.run_data import open_run_data

# One untrained network may point at the middle by luck.
UNTRAINED_SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for; see ``rcmnet explain --help``.

    Attributes:
      workdirs: of the networks, at least one.
      images: files and folders; empty where `part` is given.
      part: of the first run's split, or None.
      out: folder to write to.
      limit: images at most, 0 for all.
      wanted_class: name or number of the class to explain; the predicted one when None.
      untrained: show the first network before training too.
      boxes: CSV file, or None.
      checks: randomisation, deletion and insertion.
      pictures: overlays, grids and the page.
      source: where the run's own images are, if they moved.
      data_dir: where built data sets are kept.
      options: of `Explainer`.
    """

    workdirs: tuple[Path, ...]
    images: tuple[str, ...]
    part: str | None
    out: Path
    limit: int
    wanted_class: str | None
    untrained: bool
    boxes: Path | None
    checks: bool
    pictures: bool
    source: str | None
    data_dir: str | None
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of it.

    Attributes:
      read: the images.
      runs: the networks' maps.
      scores: by network's name.
    """

    read: ReadImages
    runs: tuple[RunMaps, ...]
    scores: dict[str, Any]

    @property
    def unreadable(self) -> tuple[tuple[str, str], ...]:
        """Files that could not be read, with the reasons."""
        return self.read.unreadable

    def text(self) -> str:
        """A few lines for the terminal."""
        lines = []
        for run in self.runs:
            flagged = sum(bool(facts.flags) for facts in run.facts)
            told = [
                run.correct(index, image.true_class) for index, image in enumerate(self.read.images)
            ]
            known = [right for right in told if right is not None]
            right = f"{sum(known)}/{len(known)} right, " if known else ""
            lines.append(f"{run.name}: {len(run.facts)} maps, {right}{flagged} flagged")
            lines += _score_lines(self.scores.get(run.name, {}))
        return "\n".join(lines)


def explain(request: Request) -> Done:
    """Does it.

    Raises:
      UserError: a run, layer, class, box table or folder that cannot be used, or no image that can.
    """
    restored = [load_run(workdir) for workdir in request.workdirs]
    names = unique_names(request.workdirs)
    ids = [
        None if request.wanted_class is None else class_id(r, request.wanted_class)
        for r in restored
    ]
    # What cannot work is told before the images are read.
    for r in restored:
        Explainer(r.model, mean=r.mean, std=r.std, **request.options)
    boxes = read_boxes(request.boxes) if request.boxes else None
    references, synthetic = _references(request, restored)
    chosen = choose(references, request.limit)
    read = read_images(chosen, restored[0].preprocess)
    if request.untrained:
        restored.append(untrained(restored[0]))
        names.append(f"{names[0]}, untrained")
        ids.append(ids[0])
    runs = [
        explain_run(
            name,
            network,
            read.images,
            class_ids=None if wanted is None else np.full(len(read.images), wanted),
            trained=index < len(request.workdirs),
            **request.options,
        )
        for index, (name, network, wanted) in enumerate(zip(names, restored, ids, strict=True))
    ]
    scores = _all_scores(request, runs[: len(request.workdirs)], read.images, boxes)
    if request.pictures:
        settings = {**request.options, "found": len(references), "class": request.wanted_class}
        write_explanation(
            request.out, read, runs, settings=settings, scores=scores, synthetic=synthetic
        )
    else:
        write_json(request.out / "scores.json", scores)
    return Done(read, tuple(runs), scores)


def _references(
    request: Request, restored: Sequence[TrainedNetwork]
) -> tuple[list[Reference], bool]:
    """The images asked for, and whether they are drawn."""
    if request.part is None:
        class_names = {name for r in restored for name in r.class_names}
        return find_images(request.images, class_names), False
    data = open_run_data(restored[0], source=request.source, data_dir=request.data_dir)
    dataset, split = data.dataset, data.split
    references = [
        Reference(
            str(dataset.records.file[row]),
            dataset.class_names[dataset.records.label[row]],
            functools.partial(dataset.read, row),
        )
        for row in split.indices(request.part).tolist()
    ]
    return references, dataset.synthetic


def _all_scores(
    request: Request, runs: Sequence[RunMaps], images: Sequence[CellImage], boxes: BoxTable | None
) -> dict[str, Any]:
    """By network's name; with boxes, each beside the first on the same cells."""
    if boxes is None and not request.checks:
        return {}
    scores = {run.name: _scores(request, run, images, boxes) for run in runs}
    if boxes is not None:
        first = localisation_of(runs[0], images, boxes)
        for run in runs[1:]:
            pair = compare_localisation(localisation_of(run, images, boxes), first)
            scores[run.name]["localisation"][f"minus {runs[0].name}"] = pair
    return scores


def _scores(
    request: Request, run: RunMaps, images: Sequence[CellImage], boxes: BoxTable | None
) -> dict[str, Any]:
    scores: dict[str, Any] = {"settings": request.options, "step": run.restored.step}
    if boxes is not None:
        scores["localisation"] = localisation_scores(
            run, images, boxes, seeds=UNTRAINED_SEEDS, **request.options
        )
    if request.checks:
        scores["randomisation"] = randomisation_scores(run)
        scores["faithfulness"] = faithfulness_scores(run)
    return scores


def _score_lines(scores: dict[str, Any]) -> list[str]:
    lines = []
    if "localisation" in scores:
        found = scores["localisation"]
        rows = {"trained": found["trained"]}
        rows |= {f"untrained, seed {seed}": row for seed, row in found["untrained"].items()}
        rows |= {name.replace("_", " "): row for name, row in found["controls"].items()}
        rows |= {f"  {name}": row for name, row in found["per_class"].items()}
        lines.append(f"  boxes of {found['images']} cells: pointing, energy in the box, its area")
        lines += [
            f"    {name:<24}{row['pointing']['k']}/{row['pointing']['n']}"
            f" ({_range(row['pointing'])})  {_value(row['energy'])} ({_range(row['energy'])})"
            f"  {row['area']:.3f}" + (f"  {row['empty']} empty" if row["empty"] else "")
            for name, row in rows.items()
        ]
        lines += [
            f"    energy {name}: {_value(row['energy_difference'])}"
            f" ({_range(row['energy_difference'])}); hits only here {row['hits_only_first']}, only"
            f" there {row['hits_only_second']}, p = {row['mcnemar_p']:.2g}"
            for name, row in found.items()
            if name.startswith("minus ")
        ]
    if "randomisation" in scores:
        lines.append("  rank correlation when set back, down to")
        lines += [
            f"    {name:<24}{_value(row)} ({_range(row)})"
            for name, row in scores["randomisation"].items()
        ]
    if "faithfulness" in scores:
        lines.append("  area under deletion (lower is better), insertion (higher is)")
        lines += [
            f"    {name.replace('_', ' '):<24}{_value(row['deletion_area'])}"
            f" ({_range(row['deletion_area'])})  {_value(row['insertion_area'])}"
            f" ({_range(row['insertion_area'])})"
            for name, row in scores["faithfulness"].items()
        ]
    return lines


def _value(entry: dict[str, Any]) -> str:
    return "not defined" if entry["value"] is None else f"{entry['value']:.3f}"


def _range(entry: dict[str, Any]) -> str:
    return "no interval" if entry["low"] is None else f"{entry['low']:.3f} to {entry['high']:.3f}"
