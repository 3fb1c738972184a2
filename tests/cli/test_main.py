"""The command line is quick to say how it is used."""

import io
import subprocess
import sys

import pytest

from rcmnet_jax import __version__
from rcmnet_jax.cli.exit_codes import STOPPED
from rcmnet_jax.cli.main import COMMANDS, main

# What takes a second or more to import.
HEAVY = ("jax", "flax", "orbax", "tensorflow_datasets", "matplotlib", "grain", "PIL", "numpy")


def heavy_modules_after(code: str) -> list[str]:
    script = f"import sys\n{code}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import rcmnet_jax",
        "from rcmnet_jax.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass",
        "from rcmnet_jax.cli.train import main\nmain(['--help'])",
    ],
    ids=["import", "rcmnet", "train"],
)
def test_help_and_import_load_nothing_heavy(code):
    assert heavy_modules_after(code) == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_and_nothing_heavy(command):
    code = (
        "from rcmnet_jax.cli.main import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit as end: assert end.code == 0"
    )
    assert heavy_modules_after(code) == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_of_the_command(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "example" in out
    assert f"rcmnet {command}" in out.split("example", 1)[1]


@pytest.mark.parametrize(
    "command",
    [
        "benchmark --no-torch --models rcmnet --sizes 28 --out",
        "data audit nowhere --json",
        "data audit nowhere --csv",
        "data split nowhere --out",
        "evaluate --workdir nowhere --out",
        "evaluate --compare nowhere nowhere --out",
        "explain --workdir nowhere --images nowhere --out",
        "export --workdir nowhere --out",
        "reproduce --quick --out",
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(
    command, rcmnet_error, tmp_path
):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    line = rcmnet_error(*command.split(), file / "new.safetensors")
    option = command.split()[-1]
    assert line == f"error: {file} is a file, no folder: choose another {option}"
    assert file.read_text() == "mine"


def test_rcmnet_train_is_train_py(capsys):
    assert main(["train", "--help"]) == 0
    assert "rcmnet train --config" in capsys.readouterr().out
    assert main(["train", "--config=no.py", "--workdir=run"]) == 2
    assert "error: config file 'no.py' does not exist" in capsys.readouterr().err


def test_python_dash_m_is_the_same_command():
    command = [sys.executable, "-m", "rcmnet_jax", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


@pytest.mark.parametrize("argv", [[], ["fly"], ["evaluate"], ["evaluate", "--part", "all"]])
def test_arguments_that_are_not_understood_end_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert "usage: rcmnet" in capsys.readouterr().err


def test_ctrl_c_is_one_word_and_the_shells_status(monkeypatch, capsys):
    from rcmnet_jax.cli import data

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "run", interrupted)
    assert main(["data", "audit", "anything"]) == STOPPED == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_letters_that_the_terminal_lacks_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit):
        main(["--version"])
    print("中", end="")
    stream.flush()
    assert stream.buffer.getvalue().endswith(rb"\u4e2d")
