"""Checkpoints that say where they come from and prove that they are whole, and portable bundles.

`CheckpointStore` loads Orbax, so it comes on first use: a bundle opens without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rcmnet_jax.checkpoints.bundle import read_bundle as read_bundle
from rcmnet_jax.checkpoints.bundle import write_bundle as write_bundle
from rcmnet_jax.checkpoints.digest import tree_sha256 as tree_sha256
from rcmnet_jax.checkpoints.open_model import load_model as load_model
from rcmnet_jax.checkpoints.open_model import load_run as load_run
from rcmnet_jax.checkpoints.open_model import run_folder as run_folder
from rcmnet_jax.checkpoints.provenance import collect_provenance as collect_provenance
from rcmnet_jax.inference.network import TrainedNetwork as TrainedNetwork

if TYPE_CHECKING:
    from rcmnet_jax.checkpoints.store import CheckpointStore as CheckpointStore


def __getattr__(name: str) -> Any:
    if name != "CheckpointStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("rcmnet_jax.checkpoints.store").CheckpointStore
