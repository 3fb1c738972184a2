"""Paths mean the same wherever they are typed."""

import argparse
from pathlib import Path

import pytest

from rcmnet_jax.cli.arguments import user_path, user_path_text
from rcmnet_jax.cli.config_flags import parse_flags
from rcmnet_jax.cli.main import _parser
from rcmnet_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:the load_module.. method:DeprecationWarning")


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("~/a/b", "HOME/a/b"), ("~", "HOME"), ("a/~/b", "a/~/b"), ("a~", "a~"), ("/x", "/x")],
)
def test_only_a_leading_tilde_is_the_home_folder(home, text, expected):
    expected = expected.replace("HOME", str(home))
    assert user_path(text) == Path(expected)
    assert user_path_text(text) == expected


def test_a_home_that_does_not_exist_is_an_error_with_the_path():
    with pytest.raises(argparse.ArgumentTypeError, match="~no_such_user/a"):
        user_path("~no_such_user/a")


def test_every_path_of_every_command_is_expanded(home):
    """No option of a command keeps a `~`, whatever it is called."""

    def actions(parser):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for sub in action.choices.values():
                    yield from actions(sub)
            else:
                yield action

    words = ("folder", "file", "csv", "images", "zip", "run", "bundle", "write")
    # Texts whose help has one of these words.
    texts = {"licence", "citation"}
    kept = [
        action.dest
        for action in actions(_parser())
        if action.type in (Path, None)
        and action.nargs != 0
        and not action.choices
        and any(word in (action.help or "").lower() for word in words)
    ]
    assert set(kept) <= texts


def test_train_expands_the_workdir_and_every_path_of_the_config(home):
    config, workdir, _ = parse_flags(
        [
            "--config=configs/cells.py:size=32",
            "--workdir=~/runs/a",
            "--config.data.source=~/cells",
            "--config.init.checkpoint=~/m.rcmnet",
        ]
    )
    assert workdir == home / "runs" / "a"
    assert config.data.source == str(home / "cells")
    assert config.init.checkpoint == str(home / "m.rcmnet")


def test_train_reports_a_home_that_does_not_exist():
    with pytest.raises(UserError, match="~no_such_user/run"):
        parse_flags(["--config=configs/cells.py:size=32", "--workdir=~no_such_user/run"])


def test_the_config_file_may_lie_anywhere(home, monkeypatch, tmp_path):
    checkout = Path.cwd()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run this in a checkout of rcmnet-jax, or give the whole"):
        parse_flags(["--config=configs/cells.py", "--workdir=run"])
    config, _, _ = parse_flags(
        ["--config", f"{checkout}/configs/cells.py:size=48", "--workdir", "run"]
    )
    assert config.data.height == 48
