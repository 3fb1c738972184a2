"""Every experiment file builds for all six networks, and no key is declared or read in vain."""

import importlib
import re
from pathlib import Path

import ml_collections
import pytest

from configs.base import base_config, parse_arg
from rcmnet_jax.errors import ConfigError
from rcmnet_jax.models import MODELS, create_model
from rcmnet_jax.workdir.config_file import FREE_KEYS, flatten_config

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base")
)
SOURCES = "\n".join(path.read_text() for path in (ROOT / "rcmnet_jax").rglob("*.py"))


def get_config(name: str, arg: str = "") -> ml_collections.ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_how_it_is_run(name):
    text = importlib.import_module(f"configs.{name}").__doc__
    assert f"python train.py --config configs/{name}.py" in text


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", FILES)
def test_every_file_builds_every_network(name, model):
    config = get_config(name, f"model={model}")
    assert config.model.name == model
    assert create_model(num_classes=8, **config.model.to_dict())
    # Deltas on the base: nothing that the base does not declare.
    assert flatten_config(config).keys() == flatten_config(base_config(model)).keys()


@pytest.mark.parametrize("name", FILES)
def test_runlocal_is_small_and_keeps_everything_else(name):
    small = get_config(name, "runlocal")
    assert small.train.epochs <= 2
    assert small.data.height <= 64
    assert small.data.views == get_config(name).data.views


@pytest.mark.parametrize("name", FILES)
def test_an_unknown_argument_is_refused(name):
    with pytest.raises(ConfigError, match="'colour' is not known here: choose from model"):
        get_config(name, "colour=red")


def test_arguments_keep_the_types_of_their_defaults():
    given = parse_arg("b=2,c=0.5,d,e=false", a="x", b=1, c=1.0, d=False, e=True)
    assert given.to_dict() == {"a": "x", "b": 2, "c": 0.5, "d": True, "e": False}


@pytest.mark.parametrize("text", ["b=two", "b=", "d=perhaps", "b=1.5"])
def test_arguments_of_another_type_are_refused(text):
    with pytest.raises(ConfigError, match=re.escape(text.partition("=")[0])):
        parse_arg(text, b=1, d=False)


@pytest.mark.parametrize("key", flatten_config(base_config()))
def test_every_declared_key_is_read_by_the_library(key):
    group, _, last = key.rpartition(".")
    if group in ("model", "data.synthetic"):
        return  # Given on whole, as keyword arguments that refuse what they do not know.
    assert re.search(rf"\.{last}\b", SOURCES), f"nothing reads {key}"


def test_keys_have_no_hidden_defaults():
    assert re.findall(r"(?:config(?:\.\w+)*|optim)\.get\(", SOURCES) == []


def test_free_keys_are_keys_or_groups():
    keys = flatten_config(base_config())
    for free in FREE_KEYS:
        assert any(key == free or (free.endswith(".") and key.startswith(free)) for key in keys)
