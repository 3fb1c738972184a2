"""Foreign weights into our networks: what they have is taken, whole parts they lack start fresh."""

import json
import re

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from rcmnet_jax.checkpoints import load_model
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.interop.start_weights import IMAGENET_MEAN, IMAGENET_STD, open_weights
from rcmnet_jax.interop.torch import from_torch_state_dict, to_torch_state_dict
from rcmnet_jax.interop.torch_files import write_torch_file
from rcmnet_jax.models import create_model
from rcmnet_jax.training.loop import train
from rcmnet_jax.transfer import transfer_params
from tests.models.noise import noise_variables
from tests.training.runs import config_of, rows_of, saved_arrays

SIZE = (1, 32, 32, 3)
OPTIONS = {"width": 8, "stage_sizes": (1, 1, 1, 1)}


def network(name: str, num_classes: int = 3, **options):
    return create_model(name, num_classes, **OPTIONS, **options)


def state_of(name: str, num_classes: int = 1000, *, seed: int = 1):
    """(variables, PyTorch state dict) of a narrow network with ImageNet's classes."""
    variables = noise_variables(network(name, num_classes), SIZE, seed=seed)
    return variables, to_torch_state_dict(name, variables)


def opened(path, name: str = "rcmnet"):
    return open_weights(path, model_name=name, model=network(name), preprocess=Preprocess(32, 32))


def transferred(source, name: str = "rcmnet", **options):
    fresh = noise_variables(network(name), SIZE, seed=2)
    keep = options.pop("keep_fresh", ("params/head/.*",))
    return transfer_params(source.variables, fresh, keep_fresh=(*keep, *source.absent))


@pytest.mark.parametrize("name", ["resnet18", "resnet18_c", "resnet18_m", "rcmnet"])
@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "backbone.", "net.cnn."])
def test_a_resnet18_goes_into_every_network_that_holds_one(tmp_path, name, prefix):
    variables, state = state_of("resnet18")
    write_torch_file(
        tmp_path / "resnet18.safetensors", {prefix + key: array for key, array in state.items()}
    )
    source = opened(tmp_path / "resnet18.safetensors", name)
    taken, report = transferred(source, name)
    flat, theirs = flatten_dict(taken, sep="/"), flatten_dict(variables, sep="/")
    assert set(report.copied) == {path for path in theirs if "head" not in path}
    for path in report.copied:
        np.testing.assert_array_equal(flat[path], theirs[path], err_msg=path)
    assert all(any(p in path for p in ("cbam", "bot", "head")) for path in report.fresh)
    assert set(report.copied) | set(report.fresh) == flat.keys()
    # The classifier of ImageNet's classes is told as unused, not taken by luck.
    assert report.unused == ("params/head/bias", "params/head/kernel")
    assert (source.mean, source.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_files_without_classifier_or_counters(tmp_path):
    _, state = state_of("resnet18")
    bare = {
        name: array
        for name, array in state.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    write_torch_file(tmp_path / "features.safetensors", bare)
    _, report = transferred(opened(tmp_path / "features.safetensors"))
    assert report.unused == ()


def test_what_the_network_has_no_place_for_is_reported(tmp_path):
    _, state = state_of("rcmnet")
    write_torch_file(tmp_path / "rcmnet.safetensors", state)
    _, report = transferred(opened(tmp_path / "rcmnet.safetensors", "resnet18"), "resnet18")
    left = [path for path in report.unused if path.startswith("torch/")]
    assert "torch/layer1.0.cbam.conv.weight" in left
    assert any("bot.net" in path for path in left)


def test_position_tables_of_another_map_are_resized(tmp_path):
    variables = noise_variables(network("rcmnet", 3), (1, 96, 64, 3))
    state = to_torch_state_dict("rcmnet", variables)
    write_torch_file(tmp_path / "larger.safetensors", state)
    _, report = transferred(opened(tmp_path / "larger.safetensors"))
    assert len(report.resized) == 2


def test_the_classifier_is_taken_where_that_is_asked_and_fits(tmp_path):
    variables, state = state_of("resnet18", num_classes=3)
    write_torch_file(tmp_path / "a.safetensors", state)
    taken, _ = transferred(
        opened(tmp_path / "a.safetensors", "resnet18"), "resnet18", keep_fresh=()
    )
    np.testing.assert_array_equal(
        taken["params"]["head"]["kernel"], variables["params"]["head"]["kernel"]
    )


def test_normalisation_is_the_files_where_it_says_so(tmp_path):
    _, state = state_of("resnet18")
    metadata = {"mean": json.dumps([0.1, 0.2, 0.3]), "std": json.dumps([0.4, 0.5, 0.6])}
    write_torch_file(tmp_path / "a.safetensors", state, metadata)
    source = opened(tmp_path / "a.safetensors")
    assert (source.mean, source.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    write_torch_file(tmp_path / "b.safetensors", state, {"mean": "[1]", "std": "no"})
    assert opened(tmp_path / "b.safetensors").mean == IMAGENET_MEAN


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: {n: a for n, a in s.items() if "layer2" not in n}, "missing layer2"),
        (lambda s: {"layer1.0.cbam.mlp.0.weight": s["fc.weight"], **s}, "missing layer1.0.cbam"),
        (lambda s: {"embeddings.weight": np.zeros((3, 3), np.float32)}, "it has embeddings"),
        (lambda s: {**s, "conv1.weight": np.zeros(8, np.float32)}, "no such layer"),
    ],
    ids=["cut", "part of a part", "another network", "another shape"],
)
def test_weights_of_something_else_are_refused(tmp_path, change, told):
    write_torch_file(tmp_path / "odd.safetensors", change(state_of("resnet18")[1]))
    with pytest.raises(CheckpointError, match=told) as error:
        opened(tmp_path / "odd.safetensors")
    assert "\n" not in str(error.value)


def test_a_network_among_others_is_found_by_its_names(tmp_path):
    variables, state = state_of("resnet18")
    lightning = {f"model.encoder.{name}": array for name, array in state.items()}
    lightning["criterion.weight"] = np.ones(3, np.float32)
    write_torch_file(tmp_path / "lightning.safetensors", lightning)
    taken, report = transferred(opened(tmp_path / "lightning.safetensors"))
    np.testing.assert_array_equal(
        taken["params"]["stem"]["conv"]["kernel"], variables["params"]["stem"]["conv"]["kernel"]
    )
    assert "torch/criterion.weight" in report.unused
    two = {f"{who}.{name}": a for who in ("student", "teacher") for name, a in state.items()}
    write_torch_file(tmp_path / "two.safetensors", two)
    with pytest.raises(UserError, match=r"several such networks, under student\., teacher\."):
        opened(tmp_path / "two.safetensors")


def test_a_deeper_network_is_refused_by_the_layers_that_have_no_place(tmp_path):
    options = {"width": 8, "stage_sizes": (1, 2, 1, 1)}
    variables = noise_variables(create_model("resnet18", 1000, **options), SIZE)
    write_torch_file(tmp_path / "deep.safetensors", to_torch_state_dict("resnet18", variables))
    with pytest.raises(CheckpointError, match=r"larger network than rcmnet.*layer2\.1\.bn1"):
        opened(tmp_path / "deep.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("layer2.0.conv1.weight", np.nan, "layer2.0.conv1.weight has 1 of 1152 values NaN"),
        ("layer4.0.bn2.running_var", np.inf, "layer4.0.bn2.running_var has 1 of 64 values NaN"),
        ("bn1.running_var", -1.0, "bn1.running_var has 1 of 8 values negative"),
    ],
)
def test_numbers_that_no_network_has_are_refused_by_name(tmp_path, name, value, told):
    _, state = state_of("resnet18")
    state[name].flat[0] = value
    write_torch_file(tmp_path / "spoilt.safetensors", state)
    with pytest.raises(CheckpointError, match=told):
        opened(tmp_path / "spoilt.safetensors", "resnet18")
    with pytest.raises(UserError, match=told):
        from_torch_state_dict("resnet18", state, num_classes=1000, **OPTIONS)


def test_the_content_says_what_a_file_is_not_its_name(tmp_path):
    _, state = state_of("resnet18")
    write_torch_file(tmp_path / "a.safetensors", state)
    for name in ("checkpoint.pth.tar", "weights", "best.model", "weights.pth"):
        (tmp_path / name).write_bytes((tmp_path / "a.safetensors").read_bytes())
        _, report = transferred(opened(tmp_path / name))
        assert report.copied


def test_another_width_is_refused_with_the_shapes(tmp_path):
    variables = noise_variables(create_model("resnet18", 3, width=4), SIZE)
    state = to_torch_state_dict("resnet18", variables)
    state = {name: array for name, array in state.items() if not re.match(r"layer\d\.1\.", name)}
    write_torch_file(tmp_path / "narrow.safetensors", state)
    with pytest.raises(CheckpointError, match="cannot be transferred"):
        transferred(opened(tmp_path / "narrow.safetensors"))


def test_training_starts_from_the_file(cells, tmp_path):
    variables, state = state_of("resnet18")
    write_torch_file(tmp_path / "resnet18.safetensors", state)
    changes = {
        "init.checkpoint": str(tmp_path / "resnet18.safetensors"),
        "init.trainable": ("head/.*",),
        "init.batch_norm": "frozen",
        "model.reduction": 16,
    }
    train(config_of(cells, "model=resnet18,epochs=1", **changes), tmp_path / "run")
    after = saved_arrays(tmp_path / "run" / "checkpoints" / "best")
    kernel = variables["params"]["stage4"]["block1"]["conv2"]["kernel"]
    np.testing.assert_array_equal(
        after["['params']['stage4']['block1']['conv2']['kernel']"], kernel
    )
    run = load_model(tmp_path / "run")
    assert run.mean == pytest.approx(IMAGENET_MEAN)
    assert run.meta["transfer"]["from"].endswith("resnet18.safetensors")
    assert len(rows_of(tmp_path / "run", "epoch")) == 1
