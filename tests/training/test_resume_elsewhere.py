"""A run with checkpoints of its own resumes wherever its start weights are by then, or nowhere."""

import shutil

import pytest

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.hosts.stop import StopRequest
from rcmnet_jax.training.loop import Interrupted, train
from tests.training.runs import config_of, last_digest

FROZEN = {"init.trainable": ("head/.*",), "init.batch_norm": "frozen"}


@pytest.fixture
def stopped(cells, finished, tmp_path, monkeypatch):
    """A transfer that was stopped after its first call, and the folder of its start weights."""
    source = tmp_path / "source"
    shutil.copytree(finished[0], source)
    look = StopRequest.look
    monkeypatch.setattr(StopRequest, "look", lambda self: (look(self), self.make()))
    monkeypatch.setattr("rcmnet_jax.training.feed.STEPS_PER_DISPATCH_OF_FEATURES", 3)
    with pytest.raises(Interrupted):
        train(config_of(cells, **{"init.checkpoint": str(source)}, **FROZEN), tmp_path / "run")
    monkeypatch.setattr(StopRequest, "look", look)
    return tmp_path / "run", source


@pytest.mark.parametrize("now", ["moved", "gone"])
def test_the_rest_is_the_undisturbed_run(now, stopped, cells, tmp_path):
    workdir, source = stopped
    config = config_of(cells, **{"init.checkpoint": str(source)}, **FROZEN)
    train(config, tmp_path / "straight")
    elsewhere = tmp_path / "elsewhere"
    source.rename(elsewhere)
    if now == "gone":
        shutil.rmtree(elsewhere)
    given = elsewhere if now == "moved" else source
    train(config_of(cells, **{"init.checkpoint": str(given)}, **FROZEN), workdir)
    assert last_digest(workdir) == last_digest(tmp_path / "straight")


def test_start_weights_for_a_run_from_scratch_are_another_config(finished, cells, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(finished[0], copied)
    with pytest.raises(ConfigError, match=r"init\.checkpoint was ''"):
        train(config_of(cells, "epochs=3", **{"init.checkpoint": str(finished[0])}), copied)
