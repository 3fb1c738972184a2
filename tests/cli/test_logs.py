"""What reaches standard error besides our own lines."""

import sys
import types

import pytest

from rcmnet_jax.cli.logs import configure_logging


@pytest.fixture
def told(monkeypatch):
    """What Python would have printed, with the command's logging configured."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    configure_logging()
    configure_logging()
    return told


def ignored(error: BaseException) -> types.SimpleNamespace:
    return types.SimpleNamespace(exc_value=error)


def test_a_read_that_ends_after_orbax_has_given_up_is_no_traceback(told):
    sys.unraisablehook(ignored(RuntimeError("Event loop is closed")))
    assert not told


@pytest.mark.parametrize("error", [RuntimeError("another"), ValueError("Event loop is closed")])
def test_whatever_else_python_cannot_raise_is_told(told, error):
    sys.unraisablehook(ignored(error))
    assert [one.exc_value for one in told] == [error]
