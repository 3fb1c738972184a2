"""The folder that ``rcmnet explain`` writes: overlays, grids, raw maps, scores and the page."""

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rcmnet_jax.evaluation.results import write_json
from rcmnet_jax.explain.images import ReadImages
from rcmnet_jax.explain.map_figures import (
    enlarged_overlay,
    enlarged_pixels,
    grid_picture,
    map_picture,
    write_png,
)
from rcmnet_jax.explain.network_maps import NetworkMaps
from rcmnet_jax.explain.score_tables import score_tables
from rcmnet_jax.files import replacing
from rcmnet_jax.html import image_uri, write_page

GRID_IMAGES = 16
FAILURES = 24


def write_explanation(
    out: Path,
    read: ReadImages,
    networks: Sequence[NetworkMaps],
    *,
    settings: dict[str, Any],
    scores: dict[str, Any] | None = None,
    synthetic: bool = False,
) -> None:
    """Writes all files of an explanation and removes those of the one before it.

    Args:
      out: folder, made if missing. Files that an earlier call wrote are removed; others stay.
      read: the images.
      networks: at least one, each with maps of all images.
      settings: how the maps were made, for the page.
      scores: by network's name.
      synthetic: whether the cells are drawn; the page then says so.

    Raises:
      UserError: a file cannot be written.
    """
    images = read.images
    overlays = _overlay_files(read, networks)
    wrong = failures(read, networks)
    files = ["maps.json", "maps.npz", "grid.png", "index.html"]
    files += ["failures.png"] if wrong else []
    files += ["scores.json"] if scores else []
    files += [file for of_network in overlays.values() for file in of_network]
    _remove_earlier(out, keep=files)
    # First, since it lists the files: an interrupted call can then be cleared away too.
    write_json(out / "maps.json", _document(read, networks, overlays, settings, files))
    _write_arrays(out / "maps.npz", read, networks)
    if scores:
        write_json(out / "scores.json", scores)
    for maps in networks:
        for index, image in enumerate(images):
            write_png(out / overlays[maps.name][index], map_picture(maps, index, image))
    write_png(out / "grid.png", grid_picture(images, networks, _spread_over_classes(read)))
    if wrong:
        write_png(out / "failures.png", grid_picture(images, networks, wrong[:FAILURES]))
    records = [
        {
            "file": image.file,
            "true_class": image.true_class,
            "original": image_uri(enlarged_pixels(image, networks[0].network.preprocess)),
            "runs": [_card(maps, index, read) for maps in networks],
        }
        for index, image in enumerate(images)
    ]
    write_page(
        out / "index.html",
        "explain.html",
        title="Where the network looked",
        records=records,
        networks=networks,
        class_names=sorted({r["true_class"] for r in records if r["true_class"]}),
        unreadable=read.unreadable,
        settings=settings,
        score_tables={name: score_tables(row) for name, row in (scores or {}).items()},
        synthetic=synthetic,
    )


def failures(read: ReadImages, networks: Sequence[NetworkMaps]) -> list[int]:
    """Images that some trained network gets wrong, the most confident error first."""
    confidence = {}
    for index, image in enumerate(read.images):
        errors = [m.confidence(index) for m in networks if m.failed(index, image.true_class)]
        if errors:
            confidence[index] = max(errors)
    return sorted(confidence, key=lambda index: -confidence[index])


def _remove_earlier(out: Path, keep: Sequence[str]) -> None:
    """Removes the files that the folder's own ``maps.json`` lists, and folders left empty."""
    try:
        document = json.loads((out / "maps.json").read_text())
        records = [run for image in document["images"] for run in image["runs"].values()]
        # Older documents list overlays only.
        files = document.get("files", [record["overlay"] for record in records])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # Not written by an earlier call.
    for name in set(map(str, files)) - set(keep):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            continue
        # What cannot be removed stays; the new files are written all the same.
        with contextlib.suppress(OSError):
            (out / path).unlink()
            for folder in path.parents[:-1]:
                (out / folder).rmdir()


def _spread_over_classes(read: ReadImages) -> list[int]:
    """The first images of every class in turn, chosen without regard to their maps."""
    turns: dict[str | None, int] = {}
    order = []
    for index, image in enumerate(read.images):
        turn = turns.get(image.true_class, 0)
        turns[image.true_class] = turn + 1
        order.append((turn, image.true_class or "", index))
    return [index for _, _, index in sorted(order)[:GRID_IMAGES]]


def _overlay_files(read: ReadImages, networks: Sequence[NetworkMaps]) -> dict[str, list[str]]:
    digits = len(str(len(read.images)))
    return {
        maps.name: [
            f"overlays/{_safe(maps.name)}/{number:0{digits}}_{_safe(Path(image.file).stem)}.png"
            for number, image in enumerate(read.images)
        ]
        for maps in networks
    }


def unique_names(models: Sequence[Path]) -> list[str]:
    """A name for each network: its folder's or file's, preceded by parents until all differ.

    A name such as ``seed0`` or ``fold1`` always comes with its parent.
    """
    paths = [_run_folder(model.resolve()) for model in models]
    first = max(_least_depth(path) for path in paths)
    for depth in range(first, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len({_safe(name) for name in names}) == len(names):
            return names
    # The same path twice.
    return [f"{path.name} ({number})" for number, path in enumerate(paths, start=1)]


def _run_folder(path: Path) -> Path:
    """The folder of the run where a path is that of its best checkpoint, otherwise the path."""
    best = path.parent if path.name.isdigit() else path
    return best.parents[1] if best.parts[-2:] == ("checkpoints", "best") else path


def _least_depth(path: Path) -> int:
    depth = 1
    while re.fullmatch(r"(seed|fold)\d+", path.parts[-depth]):
        depth += 1
    return depth


def _safe(name: str) -> str:
    """A file name that every system accepts."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._")[:80] or "unnamed"


def _card(maps: NetworkMaps, index: int, read: ReadImages) -> dict[str, Any]:
    image = read.images[index]
    pixels = enlarged_pixels(image, maps.network.preprocess)
    return {
        "name": maps.name,
        "failed": maps.failed(index, image.true_class),
        **maps.record(index, image.true_class),
        "overlay": image_uri(enlarged_overlay(maps, index, pixels)),
    }


def _write_arrays(path: Path, read: ReadImages, networks: Sequence[NetworkMaps]) -> None:
    arrays: dict[str, np.ndarray] = {"files": np.array([i.file for i in read.images])}
    for maps in networks:
        name = _safe(maps.name)
        arrays[f"{name}/signed_maps"] = maps.explained.signed_Nxhxw
        arrays[f"{name}/logits"] = maps.explained.logits_NxK
        arrays[f"{name}/explained_class"] = maps.explained.class_ids_N
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def _document(read, networks, overlays, settings, files) -> dict[str, Any]:
    """The content of ``maps.json``."""
    return {
        "settings": settings,
        "files": files,
        "runs": {
            maps.name: {
                "arrays": _safe(maps.name),
                "step": maps.network.step,
                "class_names": list(maps.network.class_names),
                "layer": maps.layer,
                "temperature": maps.network.temperature,
                "placement": _placement(maps),
            }
            for maps in networks
        },
        "images": [
            {
                "file": image.file,
                "true_class": image.true_class,
                "runs": {
                    maps.name: {
                        **maps.record(index, image.true_class),
                        "overlay": overlays[maps.name][index],
                    }
                    for maps in networks
                },
            }
            for index, image in enumerate(read.images)
        ],
        "unreadable": [{"file": file, "reason": reason} for file, reason in read.unreadable],
    }


def _placement(maps: NetworkMaps) -> dict[str, float] | None:
    """Stride and offset in pixels of the network's input, for rows and columns alike."""
    grid = maps.explained.placement
    return None if grid is None else {"stride": grid.stride, "offset": grid.offset}
