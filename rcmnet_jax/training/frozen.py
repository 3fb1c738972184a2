"""Features of a frozen backbone, computed once, so that an epoch runs the classifier alone.

Batches, losses and classifier are those of the plain path, to rounding; see
`rcmnet_jax.transfer.frozen_features` for why, and docs/decisions/0010 for when.
"""

import dataclasses
import logging
import math

import jax
import numpy as np

from rcmnet_jax.inference import BatchedPass
from rcmnet_jax.training.experiment import Experiment
from rcmnet_jax.transfer.frozen_features import pooled_features, why_not_constant
from rcmnet_jax.types import Variables

logger = logging.getLogger(__name__)

# Features lie on the device like the images they replace; more than this is not kept.
LARGEST_BYTES = 4 * 2**30
# Of the networks whose classifier has hidden layers, 64 images' maps are a few MB.
BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class FrozenFeatures:
    """Pooled features, float32, of the parts that training uses.

    Attributes:
      train: (N, V, h, w, C), every view of every training image.
      watched: (M, h, w, C), every image of the part that the best epoch is chosen on, unturned.
    """

    train: np.ndarray
    watched: np.ndarray


def frozen_features(experiment: Experiment, variables: Variables) -> FrozenFeatures | None:
    """The features of a run whose backbone is frozen; None, with the reason logged, if it is not.

    Args:
      experiment: the run.
      variables: its ``params`` and ``batch_stats``, transfer done.
    """
    reason = _why_plain(experiment)
    if reason:
        # Silent where nothing is frozen at all, which is most runs.
        if experiment.step_config.trainable is not None:
            logger.info("every epoch runs the whole network: %s", reason)
        return None
    views = experiment.step_config.augmentation.distinct_views
    rows = experiment.split.indices("train")
    logger.info(
        "the backbone is frozen: features of %d images in %d %s are computed once, and only the"
        " classifier runs in each epoch (train.frozen_features=never: the whole network)",
        len(rows),
        views,
        "view" if views == 1 else "views",
    )
    extract = BatchedPass(
        pooled_features,
        experiment.model,
        mean=experiment.mean,
        std=experiment.std,
        batch_size=BATCH_SIZE,
        mesh=experiment.mesh,
    )
    progress = "features" if experiment.config.log.progress else ""
    by_view_VxNxhxwxC = extract(
        variables, experiment.pixels, rows, views=range(views), progress=progress
    )
    watched = experiment.split.indices(experiment.config.eval.watch)
    return FrozenFeatures(
        train=np.ascontiguousarray(by_view_VxNxhxwxC.swapaxes(0, 1)),
        # In a view too, though it is the image as it is: the program is there already.
        watched=extract(variables, experiment.pixels, watched, views=(0,), progress=progress)[0],
    )


def _why_plain(experiment: Experiment) -> str:
    config, step_config = experiment.config, experiment.step_config
    if config.eval.views != "one":
        return "the test part is watched in six views"
    if config.train.frozen_features == "never":
        return "train.frozen_features=never"
    if jax.process_count() > 1:
        return "several hosts train"
    reason = why_not_constant(
        experiment.model,
        experiment.input_shape,
        trainable=step_config.trainable,
        frozen_norm=step_config.frozen_norm,
        jitter=step_config.augmentation.jitters,
    )
    if reason:
        return reason
    images = len(experiment.split.indices("train")) * step_config.augmentation.distinct_views
    needed = 4 * images * _feature_size(experiment)
    if needed > LARGEST_BYTES:
        return f"the features would take {needed / 2**30:.1f} GiB"
    return ""


def _feature_size(experiment: Experiment) -> int:
    """Numbers the classifier is given for one image."""
    model, image = experiment.model, np.zeros(experiment.input_shape, np.float32)

    def pooled(key, x):
        variables = model.init(key, x, train=False)
        f = model.apply(variables, x, train=False, method="features")
        return model.apply(variables, f, method="pool")

    return math.prod(jax.eval_shape(pooled, jax.random.key(0), image).shape)
