"""RCMNet in JAX/Flax: train, transfer, evaluate and explain blood-cell image classifiers.

The public names are below; docs/api.md shows each in use. Importing the package imports nothing
heavy: a name, or a room such as `rcmnet_jax.models`, is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcmnet_jax.checkpoints.open_model import load_model as load_model
    from rcmnet_jax.checkpoints.open_model import load_run as load_run
    from rcmnet_jax.checkpoints.pretrained import pretrained as pretrained
    from rcmnet_jax.data.augment_settings import Augmentation as Augmentation
    from rcmnet_jax.data.preprocess import Preprocess as Preprocess
    from rcmnet_jax.data.preprocess import decode_image as decode_image
    from rcmnet_jax.evaluation.metrics import evaluate_predictions as evaluate_predictions
    from rcmnet_jax.explain.grad_cam import grad_cam as grad_cam
    from rcmnet_jax.inference.network import TrainedNetwork as TrainedNetwork
    from rcmnet_jax.interop.torch import from_torch_state_dict as from_torch_state_dict
    from rcmnet_jax.interop.torch import to_torch_state_dict as to_torch_state_dict
    from rcmnet_jax.models.rcmnet import RCMNet as RCMNet
    from rcmnet_jax.models.registry import MODELS as MODELS
    from rcmnet_jax.models.registry import create_model as create_model
    from rcmnet_jax.prediction.classifier import Classifier as Classifier
    from rcmnet_jax.prediction.classifier import open_classifier as open_classifier
    from rcmnet_jax.runtime import configure_runtime as configure_runtime
    from rcmnet_jax.training.experiment import build_experiment as build_experiment
    from rcmnet_jax.training.loop import train as train
    from rcmnet_jax.training.state import TrainState as TrainState
    from rcmnet_jax.training.state import create_train_state as create_train_state
    from rcmnet_jax.training.steps import StepConfig as StepConfig
    from rcmnet_jax.training.steps import StepInputs as StepInputs
    from rcmnet_jax.training.steps import train_step as train_step
    from rcmnet_jax.transfer.surgery import transfer_params as transfer_params

__version__ = "0.1.0"

# Public name -> the module that defines it.
PUBLIC = {
    "Augmentation": "data.augment_settings",
    "Classifier": "prediction.classifier",
    "MODELS": "models.registry",
    "Preprocess": "data.preprocess",
    "RCMNet": "models.rcmnet",
    "StepConfig": "training.steps",
    "StepInputs": "training.steps",
    "TrainState": "training.state",
    "TrainedNetwork": "inference.network",
    "build_experiment": "training.experiment",
    "configure_runtime": "runtime",
    "create_model": "models.registry",
    "create_train_state": "training.state",
    "decode_image": "data.preprocess",
    "evaluate_predictions": "evaluation.metrics",
    "from_torch_state_dict": "interop.torch",
    "grad_cam": "explain.grad_cam",
    "load_model": "checkpoints.open_model",
    "load_run": "checkpoints.open_model",
    "open_classifier": "prediction.classifier",
    "pretrained": "checkpoints.pretrained",
    "to_torch_state_dict": "interop.torch",
    "train": "training.loop",
    "train_step": "training.steps",
    "transfer_params": "transfer.surgery",
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
