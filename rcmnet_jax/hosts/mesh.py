"""Data-parallel placement: one mesh axis over all devices, the same code for one or many.

Training state is replicated, batches are split along their batch axis. Under `jax.jit` the
compiler then inserts the reductions, batch-norm statistics included, so a step computes the same
as on one device.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rcmnet_jax.errors import ConfigError

AXIS = "data"


def make_mesh() -> Mesh:
    """All devices of all processes along one axis."""
    return Mesh(np.asarray(jax.devices()), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """Every device holds its part of the batch, which is the given axis."""
    return NamedSharding(mesh, PartitionSpec(*([None] * axis), AXIS))


def put_replicated(tree, mesh: Mesh):
    """Places a tree of host arrays, the same in every process, on every device."""
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated(mesh))
    # Without the comparison across processes that device_put makes, which would send every byte.
    return multihost_utils.host_local_array_to_global_array(tree, mesh, PartitionSpec())


def put_batch(tree, mesh: Mesh, *, axis: int = 0):
    """Places this process's part of a batch; the result is the global batch."""
    sharding = split_batch(mesh, axis=axis)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
    )


def same_everywhere(values: np.ndarray) -> np.ndarray:
    """The values as process 0 has them: where a last digit may differ, one process decides."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.broadcast_one_to_all(values))


def require_divisible(batch_size: int, mesh: Mesh, key: str) -> None:
    """Raises `ConfigError` unless every device gets the same number of examples."""
    if batch_size % mesh.size:
        raise ConfigError(
            f"{key}={batch_size} cannot be split evenly over {mesh.size} devices:"
            f" use a multiple of {mesh.size}"
        )
