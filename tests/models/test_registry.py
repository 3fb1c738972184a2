"""The six networks by name: exact parameter counts, and errors that list the choices."""

import math

import jax
import jax.numpy as jnp
import pytest

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.models import DTYPES, MODELS, create_model
from tests.models.noise import shapes_of

# design.md section 2: torchvision's own counts, and the paper's additions, for 8 and 2 classes.
PARAMETERS = {
    ("resnet18", 8): 11_180_616,
    ("resnet18", 2): 11_177_538,
    ("resnet18_c", 8): 11_270_480,
    ("resnet18_c", 2): 11_267_402,
    ("resnet18_m", 8): 11_713_096,
    ("resnet18_m", 2): 11_710_018,
    ("rcmnet", 8): 11_802_960,
    ("rcmnet", 2): 11_799_882,
    ("vgg19", 8): 139_603_016,
    ("vgg19", 2): 139_578_434,
    ("alexnet", 8): 57_036_616,
    ("alexnet", 2): 57_012_034,
}


@pytest.mark.parametrize(("name", "num_classes"), PARAMETERS)
def test_parameter_counts(name, num_classes):
    params = shapes_of(create_model(name, num_classes), (1, 363, 360, 3))["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count == PARAMETERS[name, num_classes]


def test_all_six_are_counted():
    assert {name for name, _ in PARAMETERS} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_types_and_hashing(name):
    model = create_model(name, 8, dtype="bfloat16", param_dtype="bfloat16")
    assert hash(model) == hash(create_model(name, 8, dtype="bfloat16", param_dtype="bfloat16"))
    variables = shapes_of(model, (1, 64, 64, 3))
    assert {s.dtype for s in jax.tree.leaves(variables["params"])} == {jnp.dtype(jnp.bfloat16)}
    logits = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=False),
        variables,
        jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
    )
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet50"}, r"'resnet50' is not known: choose from .*rcmnet"),
        ({"num_classes": 1}, r"at least two classes, got num_classes=1"),
        ({"dtype": "int8"}, r"model\.dtype 'int8' is not one of float32"),
        ({"param_dtype": "double"}, r"model\.param_dtype 'double' is not one of float32"),
        ({"depth": 5}, r"has no option depth: it takes .*width"),
        ({"norm": "layer"}, r"model\.norm 'layer' is not one of batch, group"),
        ({"stem": "tiny"}, r"model\.stem 'tiny' is not one of imagenet, small"),
        ({"name": "vgg19", "width": 8}, r"'vgg19' has no option width"),
    ],
)
def test_wrong_options_are_told_in_one_line(arguments, message):
    arguments = {"name": "rcmnet", "num_classes": 8, **arguments}
    with pytest.raises(ConfigError, match=message) as error:
        create_model(arguments.pop("name"), arguments.pop("num_classes"), **arguments)
    assert "\n" not in str(error.value)


def test_compute_types():
    assert set(DTYPES) == {"float32", "bfloat16", "float16"}


def test_lists_from_a_json_config_leave_the_network_hashable():
    model = create_model("rcmnet", 3, stage_sizes=[1, 1])
    assert model == create_model("rcmnet", 3, stage_sizes=(1, 1))
    hash(model)
    hash(create_model("vgg19", 3, stages=[[1, 4], [1, 8]]))
