"""Validation during training, and the one scoring of the test part after it."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rcmnet_jax.checkpoints.store import CheckpointStore
from rcmnet_jax.errors import CheckpointError, ConfigError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.report import write_evaluation
from rcmnet_jax.training.experiment import Experiment
from rcmnet_jax.training.mesh import replicated
from rcmnet_jax.training.predict import Predictor, softmax
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.types import Variables

# Each metric a run can be steered by, and whether more of it is better.
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
      val_features: (M, h, w, C) of the validation part, where the backbone is frozen.
    """

    def __init__(
        self, experiment: Experiment, workdir: Path, val_features: np.ndarray | None = None
    ):
        if experiment.config.eval.metric not in METRICS:
            raise ConfigError(
                f"eval.metric {experiment.config.eval.metric!r} is not one of {', '.join(METRICS)}"
            )
        self._experiment, self._workdir = experiment, workdir
        self._val_features = val_features
        self._predictor = Predictor(
            experiment.model,
            mean=experiment.recipe.mean,
            std=experiment.recipe.std,
            batch_size=experiment.config.eval.batch_size,
            mesh=experiment.mesh,
        )

    def _probabilities(self, variables: Variables, rows: np.ndarray) -> np.ndarray:
        return softmax(self._predictor.logits(variables, self._experiment.pixels, rows))

    def score(self, state: TrainState, part: str) -> dict[str, float]:
        """The `METRICS` of a part; empty when the split has no such part."""
        rows = self._experiment.split.indices(part)
        if not len(rows):
            return {}
        if part == "val" and self._val_features is not None:
            logits = self._predictor.logits_of_features(state.eval_variables, self._val_features)
            probabilities = softmax(logits)
        else:
            probabilities = self._probabilities(state.eval_variables, rows)
        labels = self._experiment.dataset.records.label[rows]
        confusion = scores.confusion_matrix(
            labels, scores.predict(probabilities), probabilities.shape[1]
        )
        return {
            "loss": float(scores.negative_log_likelihood(labels, probabilities).mean()),
            "accuracy": float(scores.accuracy(confusion)),
            "balanced_accuracy": float(scores.balanced_accuracy(confusion)),
            "macro_f1": float(scores.macro_f1(confusion)),
            "macro_auc": float(scores.macro_auc(scores.one_vs_rest_auc(labels, probabilities))),
        }

    def write_test(self, best: CheckpointStore) -> dict[str, Any]:
        """Scores the test part with the best weights and writes ``test_*`` into the workdir."""
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
        groups = experiment.split.group[rows]
        evaluation = write_evaluation(
            self._workdir,
            records.label[rows],
            self._probabilities(saved.state, rows),
            files=records.file[rows],
            sha256=records.sha256[rows],
            class_names=experiment.dataset.class_names,
            groups=groups.tolist() if np.all(groups != "") else None,
            synthetic=experiment.dataset.synthetic,
            meta={**saved.meta, "step": saved.step},
        )
        return evaluation.to_dict()

    def _init_variables(self) -> Variables:
        experiment = self._experiment
        image = np.zeros(experiment.input_shape, np.float32)
        variables = experiment.model.init(jax.random.key(0), image, train=False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
