"""What the maps of a network are worth: localisation, randomisation, deletion and insertion."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from rcmnet_jax.errors import DataError
from rcmnet_jax.explain.boxes import Box, BoxTable, box_in_pixels
from rcmnet_jax.explain.faithfulness import deletion_and_insertion
from rcmnet_jax.explain.images import CellImage
from rcmnet_jax.explain.localisation import (
    Localisation,
    compare_localisation,
    localise,
    mean_interval,
    spot,
)
from rcmnet_jax.explain.overlay import upsample
from rcmnet_jax.explain.randomisation import modules_from_the_top, similarity_by_module
from rcmnet_jax.explain.run_maps import RunMaps, explain_run, fresh_variables, untrained
from rcmnet_jax.inference import BatchedPass, logits, softmax


def localisation_scores(
    run: RunMaps,
    images: Sequence[CellImage],
    boxes: BoxTable,
    *,
    seeds: Sequence[int] = (0,),
    **options,
) -> dict[str, Any]:
    """Pointing game and energy in the box, against the untrained network and two controls.

    Args:
      run: maps of the images.
      images: those images.
      boxes: of some of them; the others are left out.
      seeds: of the untrained networks, which explain the same classes.
      **options: of `Explainer`, as the run was made with.

    Returns:
      JSON-ready: ``images`` (with a box), ``trained``, ``per_class``, ``untrained`` by seed, each
      with the paired comparison, and ``controls``.

    Raises:
      DataError: no image has a box.
    """
    rows, in_pixels = _boxed(run, images, boxes)
    preprocess = run.restored.preprocess
    size = (preprocess.height, preprocess.width)
    trained = localisation_of(run, images, boxes)
    classes = np.array([images[i].true_class or "unknown" for i in rows])
    against = {}
    for seed in seeds:
        ids = run.explained.class_ids_N
        fresh = untrained(run.restored, seed=seed)
        other = explain_run(run.name, fresh, images, class_ids=ids, **options)
        maps = localisation_of(other, images, boxes)
        compared = compare_localisation(trained, maps)
        against[str(seed)] = {**maps.summary(), "trained_minus_untrained": compared}
    middle = localise(np.repeat(spot(*size)[None], len(rows), axis=0), in_pixels, size, None)
    return {
        "images": len(rows),
        "trained": trained.summary(),
        "per_class": {
            name: trained.of(np.flatnonzero(classes == name)).summary()
            for name in np.unique(classes).tolist()
        },
        "untrained": against,
        "controls": {"spot_in_the_middle": middle.summary()},
    }


def localisation_of(run: RunMaps, images: Sequence[CellImage], boxes: BoxTable) -> Localisation:
    """How the maps of those images that have a box lie to it, in their order.

    Raises:
      DataError: no image has a box.
    """
    rows, in_pixels = _boxed(run, images, boxes)
    preprocess, explained = run.restored.preprocess, run.explained
    size = (preprocess.height, preprocess.width)
    return localise(explained.signed_Nxhxw[rows], in_pixels, size, explained.placement)


def _boxed(
    run: RunMaps, images: Sequence[CellImage], boxes: BoxTable
) -> tuple[np.ndarray, list[Box]]:
    """Which images have a box, and the boxes in the pixels that the network sees."""
    found = [(i, boxes.find(image.file)) for i, image in enumerate(images)]
    having = [(i, box) for i, box in found if box is not None]
    if not having:
        raise DataError(
            "none of the images has a box: the table must name them by class folder and file"
        )
    preprocess = run.restored.preprocess
    rows = np.array([i for i, _ in having], int)
    return rows, [box_in_pixels(box, images[i].size, preprocess) for i, box in having]


def randomisation_scores(run: RunMaps, *, seed: int = 0) -> dict[str, Any]:
    """Mean rank correlation with the trained network's maps, module after module set back.

    The classes stay those that were explained.
    """
    restored, ids = run.restored, run.explained.class_ids_N
    image = jnp.zeros((1, *run.pixels_NxHxWx3.shape[1:]))
    modules = modules_from_the_top(restored.model, restored.variables, image)
    similarity = similarity_by_module(
        lambda variables: run.explainer(variables, run.pixels_NxHxWx3, ids).signed_Nxhxw,
        restored.variables,
        fresh_variables(restored, seed=seed),
        modules,
    )
    result = {}
    for module, values in similarity.items():
        defined = values[~np.isnan(values)]
        result[module] = {
            **mean_interval(defined).to_dict(),
            "undefined": int(len(values) - len(defined)),
        }
    return result


def faithfulness_scores(run: RunMaps, *, seed: int = 0, batch_size: int = 64) -> dict[str, Any]:
    """Deletion and insertion by the maps, by random maps of their size, and by the middle spot."""
    explained, pixels = run.explained, run.pixels_NxHxWx3
    size = pixels.shape[1:3]
    positive = np.maximum(explained.signed_Nxhxw, 0)
    random = np.random.default_rng(seed).uniform(size=positive.shape)
    importances = {
        "maps": upsample(positive, size, explained.placement),
        "random": upsample(random, size, explained.placement),
        "spot_in_the_middle": np.repeat(spot(*size)[None], len(pixels), axis=0),
    }
    probability_of = _probability_of(run, batch_size)
    return {
        name: deletion_and_insertion(probability_of, pixels, importance).summary()
        for name, importance in importances.items()
    }


def _probability_of(run: RunMaps, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Probability of each image's explained class, for pixels changed in any way."""
    restored, ids = run.restored, run.explained.class_ids_N
    logits_of = BatchedPass.of(restored, logits, batch_size=min(batch_size, len(ids)))
    rows = np.arange(len(ids))

    def probability_of(pixels_NxHxWx3: np.ndarray) -> np.ndarray:
        return softmax(logits_of(restored.variables, pixels_NxHxWx3))[rows, ids]

    return probability_of
