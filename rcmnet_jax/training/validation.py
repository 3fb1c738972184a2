"""Validation during training, and the one scoring of the test part after it."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rcmnet_jax.checkpoints.store import CheckpointStore
from rcmnet_jax.data.augment_settings import PAPER_VIEWS
from rcmnet_jax.errors import CheckpointError, ConfigError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.results import write_evaluation
from rcmnet_jax.hosts.mesh import replicated, same_everywhere
from rcmnet_jax.inference import BatchedPass, logits, logits_of_features, softmax
from rcmnet_jax.training.experiment import Experiment
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.types import Variables
from rcmnet_jax.workdir.access_log import log_test_access

# Metrics that can choose the best epoch, and whether more is better.
METRICS = {
    "loss": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "macro_auc": True,
}


def is_better(metric: str, value: float, best: dict[str, Any] | None) -> bool:
    """Whether a validation score beats the best one so far; the first always does."""
    if best is None or best["value"] is None or math.isnan(best["value"]):
        return True
    return value > best["value"] if METRICS[metric] else value < best["value"]


class Scorer:
    """Scores parts of the split with one compiled prediction.

    Args:
      experiment: gives data, network and devices.
      workdir: where the test scores are written.
      watched_features: (M, h, w, C) of the part that is scored after each epoch, where the
        backbone is frozen.
    """

    def __init__(
        self, experiment: Experiment, workdir: Path, watched_features: np.ndarray | None = None
    ):
        if experiment.config.eval.metric not in METRICS:
            raise ConfigError(
                f"eval.metric {experiment.config.eval.metric!r} is not one of {', '.join(METRICS)}"
            )
        self._experiment, self._workdir = experiment, workdir
        self._watched_features = watched_features
        options = {"batch_size": experiment.config.eval.batch_size, "mesh": experiment.mesh}
        self._logits = BatchedPass(
            logits, experiment.model, mean=experiment.mean, std=experiment.std, **options
        )
        self._logits_of_features = BatchedPass(
            logits_of_features, experiment.model, mean=None, std=None, **options
        )

    def _probabilities(self, variables: Variables, rows: np.ndarray, views: int) -> np.ndarray:
        """(N views, K), all images in the first view, then all in the second, ..."""
        pixels = self._experiment.pixels
        if views == 1:
            return softmax(self._logits(variables, pixels, rows))
        by_view = self._logits(variables, pixels, rows, views=range(views))
        return softmax(np.concatenate(by_view))

    def _views(self, part: str) -> int:
        """In how many views the images of a part are scored."""
        six = part == "test" and self._experiment.config.eval.views == "paper"
        return PAPER_VIEWS if six else 1

    def score(self, state: TrainState, part: str) -> dict[str, float]:
        """The `METRICS` of a part; empty when the split has no such part."""
        rows, views = self._experiment.split.indices(part), self._views(part)
        if not len(rows):
            return {}
        if part == "test" and not jax.process_index():
            log_test_access(self._workdir, int(state.step), "watched while training")
        if self._watched_features is not None:
            probabilities = softmax(
                self._logits_of_features(state.eval_variables, self._watched_features)
            )
        else:
            probabilities = self._probabilities(state.eval_variables, rows, views)
        labels = np.tile(self._experiment.dataset.records.label[rows], views)
        confusion = scores.confusion_matrix(
            labels, scores.predict(probabilities), probabilities.shape[1]
        )
        values = {
            "loss": scores.negative_log_likelihood(labels, probabilities).mean(),
            "accuracy": scores.accuracy(confusion),
            "balanced_accuracy": scores.balanced_accuracy(confusion),
            "macro_f1": scores.macro_f1(confusion),
            "macro_auc": scores.macro_auc(scores.one_vs_rest_auc(labels, probabilities)),
        }
        # Which epoch was best decides who saves what, so all processes must agree on it.
        agreed = same_everywhere(np.asarray(list(values.values())))
        return dict(zip(values, map(float, agreed), strict=True))

    def write_test(self, best: CheckpointStore) -> dict[str, Any]:
        """Scores the test part with the best weights and writes ``test_*`` into the workdir.

        Every process of a run takes part; the first writes, and returns the evaluation.
        """
        experiment = self._experiment
        # Placed on the devices of now, which need not be those that it was saved from.
        here = replicated(experiment.mesh)
        template = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            jax.eval_shape(self._init_variables),
        )
        saved = best.restore(template)
        if saved is None:
            raise CheckpointError(f"{best.directory} holds no checkpoint: train again")
        records, rows = experiment.dataset.records, experiment.split.indices("test")
        views = self._views("test")
        probabilities = self._probabilities(saved.state, rows, views)
        if jax.process_index():
            return {}
        groups = experiment.split.group[rows]
        if not np.all(groups != ""):
            # Six views of one image are not six images.
            groups = records.file[rows] if views > 1 else None
        files = [
            f"{file}#view{view}" if view else file
            for view in range(views)
            for file in records.file[rows].tolist()
        ]
        log_test_access(self._workdir, saved.step, "scored at the end of training")
        evaluation = write_evaluation(
            self._workdir,
            np.tile(records.label[rows], views),
            probabilities,
            files=files,
            sha256=np.tile(records.sha256[rows], views).tolist(),
            class_names=experiment.dataset.class_names,
            groups=None if groups is None else np.tile(groups, views).tolist(),
            synthetic=experiment.dataset.synthetic,
            meta={**saved.meta, "step": saved.step},
        )
        return evaluation.to_dict()

    def _init_variables(self) -> Variables:
        experiment = self._experiment
        image = np.zeros(experiment.input_shape, np.float32)
        variables = experiment.model.init(jax.random.key(0), image, train=False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
