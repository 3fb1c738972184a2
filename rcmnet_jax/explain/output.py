"""What ``rcmnet explain`` leaves in its folder: overlays, grids, raw maps, scores and the page."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.evaluation.results import write_json
from rcmnet_jax.explain.images import ReadImages
from rcmnet_jax.explain.map_figures import (
    grid_picture,
    map_picture,
    shown_overlay,
    shown_pixels,
    write_png,
)
from rcmnet_jax.explain.run_maps import RunMaps
from rcmnet_jax.files import replacing
from rcmnet_jax.html import image_uri, write_page

GRID_IMAGES = 16
FAILURES = 24


def write_explanation(
    out: Path,
    read: ReadImages,
    runs: Sequence[RunMaps],
    *,
    settings: dict[str, Any],
    scores: dict[str, Any] | None = None,
    synthetic: bool = False,
) -> None:
    """Writes everything.

    Args:
      out: folder, made if missing; what an earlier call left under the same names is replaced.
      read: the images.
      runs: at least one network, each with maps of all images.
      settings: how the maps were made, told on the page.
      scores: by network's name, from `rcmnet_jax.explain.map_scores`.
      synthetic: the cells are drawn, which the page then says.

    Raises:
      UserError: a file cannot be written.
    """
    images = read.images
    files = _overlay_files(read, runs)
    for run in runs:
        for index, image in enumerate(images):
            write_png(out / files[run.name][index], map_picture(run, index, image))
    write_png(out / "grid.png", grid_picture(images, runs, _spread_over_classes(read)))
    wrong = failures(read, runs)
    if wrong:
        write_png(out / "failures.png", grid_picture(images, runs, wrong[:FAILURES]))
    else:
        # Those of an earlier call would be taken for this one's.
        (out / "failures.png").unlink(missing_ok=True)
    _write_raw(out, read, runs, files, settings, scores)
    records = [
        {
            "file": image.file,
            "true_class": image.true_class,
            "original": image_uri(shown_pixels(image, runs[0].restored.preprocess)),
            "runs": [_card(run, index, read) for run in runs],
        }
        for index, image in enumerate(images)
    ]
    write_page(
        out / "index.html",
        "explain.html",
        title="Where the network looked",
        records=records,
        run_names=[run.name for run in runs],
        class_names=sorted({r["true_class"] for r in records if r["true_class"]}),
        unreadable=read.unreadable,
        settings=settings,
        scores=scores or {},
        wrong=len(wrong),
        synthetic=synthetic,
    )


def failures(read: ReadImages, runs: Sequence[RunMaps]) -> list[int]:
    """Images that some trained network gets wrong, the most confident error first."""
    confidence = {}
    for index, image in enumerate(read.images):
        errors = [run.confidence(index) for run in runs if run.failed(index, image.true_class)]
        if errors:
            confidence[index] = max(errors)
    return sorted(confidence, key=lambda index: -confidence[index])


def _spread_over_classes(read: ReadImages) -> list[int]:
    """The first images of every class in turn: chosen without a look at the maps."""
    turns: dict[str | None, int] = {}
    order = []
    for index, image in enumerate(read.images):
        turn = turns.get(image.true_class, 0)
        turns[image.true_class] = turn + 1
        order.append((turn, image.true_class or "", index))
    chosen = sorted(order)[:GRID_IMAGES]
    return [index for _, _, index in chosen]


def _overlay_files(read: ReadImages, runs: Sequence[RunMaps]) -> dict[str, list[str]]:
    digits = len(str(len(read.images)))
    return {
        run.name: [
            f"overlays/{_safe(run.name)}/{number:0{digits}}_{_safe(Path(image.file).stem)}.png"
            for number, image in enumerate(read.images)
        ]
        for run in runs
    }


def unique_names(workdirs: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with those above as far as it takes to tell them apart.

    A seed or a fold alone says nothing: the folder that they are in comes with them.
    """
    paths = [workdir.resolve() for workdir in workdirs]
    first = max(_telling_depth(path) for path in paths)
    for depth in range(first, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len({_safe(name) for name in names}) == len(names):
            return names
    # The same folder twice.
    return [f"{path.name} ({number})" for number, path in enumerate(paths, start=1)]


def _telling_depth(path: Path) -> int:
    depth = 1
    while re.fullmatch(r"(seed|fold)\d+", path.parts[-depth]):
        depth += 1
    return depth


def _safe(name: str) -> str:
    """A name that is one on every system."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._")[:80] or "unnamed"


def _card(run: RunMaps, index: int, read: ReadImages) -> dict[str, Any]:
    image = read.images[index]
    pixels = shown_pixels(image, run.restored.preprocess)
    return {
        "name": run.name,
        "failed": run.failed(index, image.true_class),
        **run.record(index, image.true_class),
        "overlay": image_uri(shown_overlay(run, index, pixels)),
    }


def _write_raw(out, read: ReadImages, runs, files, settings, scores) -> None:
    arrays: dict[str, np.ndarray] = {"files": np.array([i.file for i in read.images])}
    for run in runs:
        name = _safe(run.name)
        arrays[f"{name}/signed_maps"] = run.explained.signed_Nxhxw
        arrays[f"{name}/logits"] = run.explained.logits_NxK
        arrays[f"{name}/explained_class"] = run.explained.class_ids_N
    with replacing(out / "maps.npz") as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
    document = {
        "settings": settings,
        "runs": {
            run.name: {
                "arrays": _safe(run.name),
                "step": run.restored.step,
                "class_names": list(run.restored.class_names),
                "placement": _placement(run),
            }
            for run in runs
        },
        "images": [
            {
                "file": image.file,
                "true_class": image.true_class,
                "runs": {
                    run.name: {
                        **run.record(index, image.true_class),
                        "overlay": files[run.name][index],
                    }
                    for run in runs
                },
            }
            for index, image in enumerate(read.images)
        ],
        "unreadable": [{"file": file, "reason": reason} for file, reason in read.unreadable],
    }
    write_json(out / "maps.json", document)
    if scores:
        write_json(out / "scores.json", scores)


def _placement(run: RunMaps) -> dict[str, float] | None:
    """Stride and offset in pixels of the network's input, for rows and columns alike."""
    grid = run.explained.placement
    return None if grid is None else {"stride": grid.stride, "offset": grid.offset}
