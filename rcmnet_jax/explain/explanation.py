"""``rcmnet explain``: from models and images to a folder of maps, pictures and scores."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rcmnet_jax.checkpoints.open_model import load_model
from rcmnet_jax.evaluation.results import write_json
from rcmnet_jax.explain.boxes import BoxTable, read_boxes
from rcmnet_jax.explain.explainer import Explainer
from rcmnet_jax.explain.faithfulness import faithfulness_scores
from rcmnet_jax.explain.images import (
    CellImage,
    ReadImages,
    Reference,
    choose,
    find_images,
    read_images,
)
from rcmnet_jax.explain.localisation import (
    compare_localisation,
    localisation_scores,
    localise_maps,
)
from rcmnet_jax.explain.map_layers import deepest_layer
from rcmnet_jax.explain.network_maps import (
    NetworkMaps,
    class_id_of,
    explain_network,
    untrained_variables,
)
from rcmnet_jax.explain.output import unique_names, write_explanation
from rcmnet_jax.explain.randomisation import randomisation_scores
from rcmnet_jax.explain.score_tables import score_tables
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.scoring.run_data import open_run_data

# Several, since one untrained network may point at the middle by chance.
UNTRAINED_SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainSettings:
    """What to explain, and how; see ``rcmnet explain --help``.

    Attributes:
      models: runs or bundles, at least one.
      out: folder to write to.
      images: files and folders; empty where `part` is given.
      part: of the first run's split, or None.
      limit: images at most, 0 for all.
      class_name: name or number of the class to explain; the predicted one when None.
      untrained: show the first network with untrained weights too.
      boxes: CSV file of boxes around the cells, or None.
      checks: score the maps by randomisation, deletion and insertion.
      pictures: write maps, overlays, grids and the page, not only the scores.
      source: where the run's own images are, if they moved.
      data_dir: where built data sets are kept.
      layer: of the maps; ``last``, or None for the deepest with enough cells (`deepest_layer`).
      method, target, smooth, batch_size: see `Explainer`.
    """

    models: tuple[Path, ...]
    out: Path
    images: tuple[str, ...] = ()
    part: str | None = None
    limit: int = 200
    class_name: str | None = None
    untrained: bool = False
    boxes: Path | None = None
    checks: bool = False
    pictures: bool = True
    source: str | None = None
    data_dir: str | None = None
    layer: str | None = None
    method: str = "grad_cam"
    target: str = "logit"
    smooth: bool = False
    batch_size: int = 32

    def explainer_options(self, network: TrainedNetwork) -> dict[str, Any]:
        """Arguments of `Explainer` for one network."""
        layer = None if self.layer == "last" else self.layer
        if self.layer is None:
            size = (network.preprocess.height, network.preprocess.width)
            layer = deepest_layer(network.model, network.variables, size)
        names = ("method", "target", "smooth", "batch_size")
        return {"layer": layer} | {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Maps of images by one or several networks, and their scores by network's name."""

    read: ReadImages
    networks: tuple[NetworkMaps, ...]
    scores: dict[str, Any]

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = []
        for maps in self.networks:
            flagged = sum(bool(facts.flags) for facts in maps.facts)
            answers = [
                maps.correct(k, image.true_class) for k, image in enumerate(self.read.images)
            ]
            known = [right for right in answers if right is not None]
            right = f"{sum(known)}/{len(known)} right, " if known else ""
            lines.append(f"{maps.name}: {len(maps.facts)} maps, {right}{flagged} flagged")
            lines.append(f"  {maps.description}")
            for table in score_tables(self.scores.get(maps.name, {})):
                lines += [f"  {table.caption}", *(f"    {line}" for line in table.lines())]
        return "\n".join(lines)


def explain_images(settings: ExplainSettings) -> Explanation:
    """Makes and scores the maps, and writes them to the folder.

    Raises:
      UserError: a model, layer, class, box table or folder cannot be used, or no image can be read.
    """
    opened = [load_model(model) for model in settings.models]
    names = unique_names(settings.models)
    # What cannot work is refused before the images are read.
    options = [settings.explainer_options(network) for network in opened]
    for network, chosen in zip(opened, options, strict=True):
        Explainer(network.model, mean=network.mean, std=network.std, **chosen)
    wanted = settings.class_name
    ids = [None if wanted is None else class_id_of(network, wanted) for network in opened]
    boxes = read_boxes(settings.boxes) if settings.boxes else None
    references, synthetic = _references(settings, opened)
    read = read_images(choose(references, settings.limit), opened[0].preprocess)
    trained = [
        explain_network(name, network, read.images, class_id=class_id, **chosen)
        for name, network, class_id, chosen in zip(names, opened, ids, options, strict=True)
    ]
    shown = list(trained)
    if settings.untrained:
        fresh = dataclasses.replace(
            opened[0], variables=untrained_variables(opened[0]), step=0, temperature=None
        )
        name = f"{names[0]}, untrained"
        shown.append(
            explain_network(name, fresh, read.images, class_id=ids[0], trained=False, **options[0])
        )
    scores: dict[str, Any] = {}
    if boxes is not None or settings.checks:
        for maps, chosen in zip(trained, options, strict=True):
            scores[maps.name] = {"settings": chosen, "step": maps.network.step}
        _add_scores(scores, trained, read.images, boxes, checks=settings.checks)
    if settings.pictures:
        layers = ", ".join(dict.fromkeys(maps.layer or "last" for maps in trained))
        record = {**options[0], "layer": layers, "found": len(references), "class": wanted}
        write_explanation(
            settings.out, read, shown, settings=record, scores=scores, synthetic=synthetic
        )
    else:
        write_json(settings.out / "scores.json", scores)
    return Explanation(read, tuple(shown), scores)


def _references(
    settings: ExplainSettings, networks: Sequence[TrainedNetwork]
) -> tuple[list[Reference], bool]:
    """The images to choose from, and whether they are drawn by a program."""
    if settings.part is None:
        class_names = {name for network in networks for name in network.class_names}
        return find_images(settings.images, class_names), False
    data = open_run_data(networks[0], source=settings.source, data_dir=settings.data_dir)
    dataset, split = data.dataset, data.split
    references = [
        Reference(
            str(dataset.records.file[row]),
            dataset.class_names[dataset.records.label[row]],
            functools.partial(dataset.read, row),
        )
        for row in split.indices(settings.part).tolist()
    ]
    return references, dataset.synthetic


def _add_scores(
    scores: dict[str, Any],
    trained: Sequence[NetworkMaps],
    images: Sequence[CellImage],
    boxes: BoxTable | None,
    *,
    checks: bool,
) -> None:
    """Adds to the scores by network's name; with boxes, each network is compared with the first."""
    for maps in trained:
        row = scores[maps.name]
        if boxes is not None:
            row["localisation"] = localisation_scores(maps, images, boxes, seeds=UNTRAINED_SEEDS)
        if checks:
            row["randomisation"] = randomisation_scores(maps)
            row["faithfulness"] = faithfulness_scores(maps)
    if boxes is not None:
        first, *others = (
            localise_maps(maps, images, boxes, maps.explained.signed_Nxhxw) for maps in trained
        )
        for maps, other in zip(trained[1:], others, strict=True):
            pair = compare_localisation(other, first)
            scores[maps.name]["localisation"][f"minus {trained[0].name}"] = pair
