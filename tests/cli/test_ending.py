"""Every command ends in order, whatever is closed or missing around it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rcmnet_jax.cli import ending
from rcmnet_jax.cli.exit_codes import CLOSED_PIPE, USER_ERROR
from rcmnet_jax.cli.main import main


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.mark.parametrize("buffering", ["-u", "-B"])
@pytest.mark.parametrize("program", ["-m rcmnet_jax data audit --help", "train.py --help"])
def test_a_reader_that_goes_away_is_no_traceback(buffering, program):
    done = shell(f'"$1" {buffering} {program} | true; exit ${{PIPESTATUS[0]}}')
    # 0: everything was written before the reader left.
    assert done.returncode in (0, CLOSED_PIPE)
    assert done.stderr == ""


def test_a_closed_pipe_has_the_status_that_shells_give_it(capfd):
    code = (
        "import os, sys\n"
        "from rcmnet_jax.cli.ending import exit_status\n"
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "sys.exit(exit_status(lambda: print('to nobody') or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


def test_closed_standard_streams_are_opened_on_the_null_device(tmp_path):
    code = (
        "import os, sys\n"
        "from rcmnet_jax.cli.ending import exit_status\n"
        "def command():\n"
        f"    file = open({str(tmp_path / 'result.txt')!r}, 'w')\n"
        "    os.write(2, b'from a library')\n"
        "    print('progress', file=sys.stderr)\n"
        "    file.write('result'); file.close()\n"
        "    return 5\n"
        "sys.exit(exit_status(command))"
    )
    done = shell(f"\"$1\" -c '{code.replace(chr(39), chr(34))}' 2>&- <&-")
    assert done.returncode == 5
    assert (tmp_path / "result.txt").read_text() == "result"


@pytest.mark.parametrize("program", ["-m rcmnet_jax predict --model no --images no --out no.csv"])
def test_a_mistake_with_standard_error_closed_keeps_its_status(program):
    done = shell(f'"$1" {program} 2>&-')
    assert done.returncode == USER_ERROR
    assert done.stdout == ""


@pytest.mark.parametrize("platform", ["cuda", "gpu", "nonsense"])
def test_a_platform_that_jax_does_not_find_is_one_line(platform):
    code = (
        "import sys\n"
        "from rcmnet_jax.cli.ending import exit_status\n"
        "import jax\n"
        "sys.exit(exit_status(lambda: jax.local_devices()))"
    )
    environment = {**os.environ, "JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == USER_ERROR
    assert done.stderr.splitlines()[-1].startswith(f"error: JAX_PLATFORMS={platform} asks for")
    assert "Traceback" not in done.stderr


def test_other_errors_keep_their_traceback():
    def broken():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        ending.exit_status(broken)


@pytest.fixture
def closed():
    """A folder that may not be looked into, by a user whom permissions bind."""
    user = os.geteuid()
    # Not pytest's own: where the tests run as root, the other user may not pass through it.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder = Path(place, "closed")
        folder.mkdir(mode=0)
        if not user:
            os.seteuid(65534)
        yield folder
        os.seteuid(user)
        folder.chmod(0o700)


@pytest.mark.parametrize(
    "command",
    [
        "data audit {}",
        "data audit {}/cells",
        "data audit {}/list.csv",
        "data build {}/cells",
        "data split {}/cells --out {}/split.csv",
        "predict --model {}/model.rcmnet --images {}/cells --out {}/p.csv",
        "predict --model {}/model.rcmnet --images . --out {}/p.csv",
        "explain --model {}/model.rcmnet --images {}/cells --out {}/maps",
        "evaluate --workdir {}/run --data {}/cells",
        "export --workdir {}/run --out {}/out.safetensors",
    ],
)
def test_a_closed_folder_is_one_line(command, closed, capfd):
    status = main(command.format(*[closed] * 3).split())
    *_, line = capfd.readouterr().err.strip().splitlines()
    assert status == USER_ERROR
    assert line.startswith("error: ")
    assert str(closed) in line
    assert "permission" in line or "may not be written to" in line


def test_a_link_to_itself_and_a_name_that_is_too_long_are_one_line(rcmnet_error, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert "loop" in rcmnet_error("data", "audit", tmp_path / "loop")
    assert "loop" in rcmnet_error("predict", "--model", tmp_path, "--images", tmp_path / "loop",
                                  "--out", tmp_path / "p.csv")  # fmt: skip
    line = rcmnet_error("data", "audit", tmp_path / ("x" * 300))
    assert "cannot be opened (File name too long)" in line


def test_an_error_of_a_file_that_no_user_can_mend_keeps_its_traceback():
    with pytest.raises(FileNotFoundError):
        ending.exit_status(lambda: len(os.listdir("no/such/folder")))
