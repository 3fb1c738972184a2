"""State dicts in files: both formats, both ways, nothing executed."""

import os
import pickle

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.interop.torch_files import is_torch_file, read_torch_file, write_torch_file

STATE = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn1.num_batches_tracked": np.asarray(5, np.int64),
    "fc.bias": np.asarray([1e-30, -2.5], np.float32),
}


def assert_same(actual, desired):
    assert actual.keys() == desired.keys()
    for name, array in desired.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array)


def test_safetensors_come_back_bit_for_bit_with_their_metadata(tmp_path):
    write_torch_file(tmp_path / "a.safetensors", STATE, {"mean": "[1, 2, 3]"})
    file = read_torch_file(tmp_path / "a.safetensors")
    assert_same(file.state, STATE)
    assert file.metadata == {"format": "pt", "mean": "[1, 2, 3]"}
    assert len(file.sha256) == 64


def test_half_precision_of_either_kind_is_read(tmp_path):
    state = {"a": np.float16([1.5]), "b": np.asarray([2.5], ml_dtypes.bfloat16)}
    save_file(state, tmp_path / "half.safetensors")
    read = read_torch_file(tmp_path / "half.safetensors").state
    assert [float(read[name][0]) for name in "ab"] == [1.5, 2.5]


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_pth_comes_back_bit_for_bit_from_whatever_it_is_wrapped_in(tmp_path, wrapper):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    write_torch_file(tmp_path / "a.pth", STATE)
    if wrapper:
        inner = torch.load(tmp_path / "a.pth", weights_only=True)
        torch.save({wrapper: inner, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    assert_same(read_torch_file(tmp_path / "a.pth").state, STATE)
    for name in ("checkpoint.pth.tar", "epoch_3"):
        (tmp_path / name).write_bytes((tmp_path / "a.pth").read_bytes())
        assert is_torch_file(tmp_path / name)
        assert_same(read_torch_file(tmp_path / name).state, STATE)


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_does_not(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harm(tmp_path / "harmed")))
    torch.save({"state_dict": Harm(tmp_path / "harmed")}, tmp_path / "zip.pth")
    for name in ("plain.pth", "zip.pth"):
        with pytest.raises(CheckpointError, match="cannot be read as weights alone") as error:
            read_torch_file(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "harmed").exists()


def test_pth_without_pytorch_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"rcmnet-jax\[torch\].*safetensors"):
        read_torch_file(tmp_path / "a.pth")


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_torch_file(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_torch_file(tmp_path / "bad.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError, match="holds no arrays"):
        read_torch_file(tmp_path / "empty.safetensors")
    with pytest.raises(UserError, match=r"a\.npz does not end in"):
        write_torch_file(tmp_path / "a.npz", STATE)
    assert not (tmp_path / "a.npz").exists()


def test_endings():
    assert is_torch_file("resnet18.safetensors")
    assert is_torch_file("resnet18-f37072fd.pth")
    assert not is_torch_file("model.rcmnet")
    assert not is_torch_file("checkpoints/run")
