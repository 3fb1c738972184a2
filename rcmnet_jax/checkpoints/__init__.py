"""Orbax checkpoints that say where they come from and prove that they are whole."""

from rcmnet_jax.checkpoints.provenance import collect_provenance as collect_provenance
from rcmnet_jax.checkpoints.restore import Restored as Restored
from rcmnet_jax.checkpoints.restore import load_run as load_run
from rcmnet_jax.checkpoints.store import CheckpointStore as CheckpointStore
from rcmnet_jax.checkpoints.store import tree_sha256 as tree_sha256
