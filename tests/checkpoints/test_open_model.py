"""A run opened for use: the same network, whatever is beside it."""

import json
import shutil

import jax
import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_run
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.training.loop import train
from tests.checkpoints.damage import DAMAGE
from tests.training.runs import config_of


@pytest.fixture(scope="module")
def run(cells, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(config_of(cells, "epochs=1", **{"optim.ema": 0.5}), workdir)
    return workdir


def test_everything_needed_to_use_the_network_is_there(run):
    network = load_run(run)
    assert network.class_names == ("blue", "pale", "pink")
    assert (network.preprocess.height, network.preprocess.width) == (32, 32)
    assert network.step == 5
    assert len(network.mean) == len(network.std) == 3
    assert network.meta["config"]["optim"]["ema"] == 0.5
    assert network.meta["split"]["level"] == "image"
    leaves = jax.tree.leaves(network.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    assert {tuple(leaf.devices()) for leaf in leaves} == {(jax.devices()[0],)}
    x = np.zeros((1, 32, 32, 3), np.float32)
    assert network.model.apply(network.variables, x, train=False).shape == (1, 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "name", ["flip_bit", "delete_state", "cut_off_the_meta", "rename_a_key_of_the_meta"]
)
def test_damage_is_told_with_the_folder(run, tmp_path, name):
    copied = shutil.copytree(run, tmp_path / "copied")
    DAMAGE[name](copied / "checkpoints" / "best" / "5")
    with pytest.raises(CheckpointError, match=r"copied/checkpoints/best.* can be read"):
        load_run(copied)


def test_a_run_without_a_checkpoint_is_told(tmp_path):
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="at least one epoch"):
        load_run(tmp_path)


@pytest.mark.parametrize("change", ["null", "classes"])
def test_a_record_that_cannot_be_used_costs_one_checkpoint(cells, tmp_path, change):
    workdir = tmp_path / "run"
    # An easy metric to better, so that there are two best checkpoints.
    train(config_of(cells, "epochs=3", **{"eval.metric": "loss"}), workdir)
    older, newer = sorted((workdir / "checkpoints" / "best").iterdir(), key=lambda p: int(p.name))
    path = newer / "meta" / "metadata"
    meta = json.loads(path.read_text())
    if change == "null":
        meta["config"] = None
    else:
        meta["class_names"] = ["other", "names", "here"]
    path.write_text(json.dumps(meta))
    network = load_run(workdir)
    assert network.step == int(older.name)
    # Not those of the damaged record, which lay on top.
    assert network.class_names == ("blue", "pale", "pink")
