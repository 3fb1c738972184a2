"""Scores with intervals, calibration, comparison and figures, from labels and probabilities.

No module here imports jax. What loads matplotlib or scipy's statistics is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rcmnet_jax.evaluation.bootstrap import bootstrap as bootstrap
from rcmnet_jax.evaluation.calibration import TemperatureFit as TemperatureFit
from rcmnet_jax.evaluation.calibration import apply_temperature as apply_temperature
from rcmnet_jax.evaluation.calibration import (
    expected_calibration_error as expected_calibration_error,
)
from rcmnet_jax.evaluation.calibration import fit_temperature as fit_temperature
from rcmnet_jax.evaluation.calibration import reliability_bins as reliability_bins
from rcmnet_jax.evaluation.comparison import Comparison as Comparison
from rcmnet_jax.evaluation.comparison import compare as compare
from rcmnet_jax.evaluation.comparison import mcnemar as mcnemar
from rcmnet_jax.evaluation.intervals import Interval as Interval
from rcmnet_jax.evaluation.intervals import Proportion as Proportion
from rcmnet_jax.evaluation.intervals import wilson as wilson
from rcmnet_jax.evaluation.metrics import ClassScores as ClassScores
from rcmnet_jax.evaluation.metrics import Evaluation as Evaluation
from rcmnet_jax.evaluation.metrics import confusion_matrix as confusion_matrix
from rcmnet_jax.evaluation.metrics import evaluate_predictions as evaluate_predictions
from rcmnet_jax.evaluation.predictions import Predictions as Predictions
from rcmnet_jax.evaluation.predictions import read_predictions as read_predictions
from rcmnet_jax.evaluation.predictions import write_predictions as write_predictions

if TYPE_CHECKING:
    from rcmnet_jax.evaluation.plots import plot_confusion as plot_confusion
    from rcmnet_jax.evaluation.plots import plot_per_class as plot_per_class
    from rcmnet_jax.evaluation.plots import plot_reliability as plot_reliability
    from rcmnet_jax.evaluation.results import write_evaluation as write_evaluation
    from rcmnet_jax.evaluation.seeds import SeedsComparison as SeedsComparison
    from rcmnet_jax.evaluation.seeds import compare_seeds as compare_seeds
    from rcmnet_jax.evaluation.training_curves import plot_curves as plot_curves

_LAZY = {
    "SeedsComparison": "seeds",
    "compare_seeds": "seeds",
    "plot_confusion": "plots",
    "plot_curves": "training_curves",
    "plot_per_class": "plots",
    "plot_reliability": "plots",
    "write_evaluation": "results",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
