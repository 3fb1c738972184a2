"""Files are whole or not there, and a place that cannot be written is told before the work."""

import subprocess
import sys

import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.files import replacing, require_folder, write_text


def test_text_is_written_as_it_is(tmp_path):
    path = tmp_path / "made" / "a.csv"
    write_text(path, "µ,1\r\n")
    assert path.read_bytes() == "µ,1\r\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["a.csv"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_there_or_can_be_made_is_accepted_and_not_made(tmp_path):
    require_folder(tmp_path)
    require_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_told(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("")
    for folder in (file, file / "b" / "c"):
        with pytest.raises(UserError, match=r"a\.txt is a file, no folder: choose another --json"):
            require_folder(folder, "--json")


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    code = (
        "import os, sys, pathlib\n"
        "from rcmnet_jax.files import require_folder\n"
        # The superuser may write everywhere.
        "if os.getuid() == 0: os.setuid(65534)\n"
        "require_folder(pathlib.Path(sys.argv[1], 'new'))"
    )
    # Pytest's folders are their owner's alone: another user may not even look.
    command = [sys.executable, "-c", code, str(locked)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "may not be written to: choose another --out" in done.stderr
