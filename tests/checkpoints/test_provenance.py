"""Where a checkpoint comes from, in JSON."""

import json

import jax

import rcmnet_jax
from rcmnet_jax.checkpoints import collect_provenance


def test_versions_device_and_revision_are_recorded():
    record = json.loads(json.dumps(collect_provenance()))
    assert record["rcmnet_jax"] == rcmnet_jax.__version__
    assert all(record["packages"].values())
    assert record["device"]["count"] == jax.device_count()
    assert record["git"] is None or len(record["git"]["revision"]) == 40
