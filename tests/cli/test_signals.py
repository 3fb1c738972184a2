"""SIGTERM outside the training loop."""

import os
import signal

import pytest

from rcmnet_jax.cli import train as command
from rcmnet_jax.cli.signals import Terminated, terminate_raises


def test_it_is_raised_once_and_the_handler_is_restored():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminate_raises():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_one_does_not_break_into_the_closing():
    closed = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            closed.append(True)

    with pytest.raises(Terminated), terminate_raises():
        work()
    assert closed == [True]


def test_what_an_import_makes_of_it_is_still_it():
    def load():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            raise ImportError("while initializing the extension") from error

    with pytest.raises(Terminated), terminate_raises():
        load()


def test_other_errors_pass():
    with pytest.raises(ImportError), terminate_raises():
        raise ImportError("really missing")


def test_the_command_ends_with_its_own_status(monkeypatch, capsys):
    monkeypatch.setattr(command, "_train", lambda argv: os.kill(os.getpid(), signal.SIGTERM))
    assert command.main(["--config", "x"]) == 75
    assert "run the same command to go on" in capsys.readouterr().err
