"""Batches over several devices: each gets its part, and sums are those of one device."""

import jax
import numpy as np
import pytest

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.hosts.mesh import make_mesh, put_batch, put_replicated, require_divisible


@pytest.mark.two_devices
def test_a_batch_is_split_and_the_rest_is_on_every_device():
    mesh = make_mesh()
    assert mesh.size == 2
    batch = put_batch(np.arange(8.0).reshape(4, 2), mesh)
    assert [shard.data.shape for shard in batch.addressable_shards] == [(2, 2), (2, 2)]
    assert float(jax.jit(lambda x: x.sum())(batch)) == 28.0
    weights = put_replicated(np.ones(3), mesh)
    assert [shard.data.shape for shard in weights.addressable_shards] == [(3,), (3,)]


@pytest.mark.two_devices
def test_a_batch_that_two_devices_cannot_share_is_refused():
    require_divisible(8, make_mesh(), "train.batch_size")
    with pytest.raises(ConfigError, match=r"train\.batch_size=7 .* 2 devices: use a multiple of 2"):
        require_divisible(7, make_mesh(), "train.batch_size")
