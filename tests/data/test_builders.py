"""TFDS records: the bytes, the order, large sets, and builds that are cut off or run twice."""

import hashlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from rcmnet_jax.data import builders, record_store
from rcmnet_jax.data.audit import audit_source
from rcmnet_jax.data.builders import RECORD_VERSION
from rcmnet_jax.data.dataset import prepare_dataset
from rcmnet_jax.data.sources import open_source
from rcmnet_jax.errors import DataError


def test_records_are_the_kept_rows_in_order(class_folder, tmp_path):
    root = class_folder({"a": 7, "b": 5})
    (root / "a" / "junk.jpg").write_bytes(b"junk")
    source = open_source(root)
    audit = audit_source(source, progress=False)
    directory = tmp_path / "cell_folder" / "config" / RECORD_VERSION
    record_store.build("cell_folder", source, audit, directory, progress=False)
    records = record_store.open_records(directory)
    assert len(records) == len(audit.kept) == 12
    for record, row in zip(records, audit.kept, strict=True):
        assert record["file"].decode() == row.file
        assert record["sha256"].decode() == row.sha256
        assert record["image"] == (root / row.file).read_bytes()
        assert audit.class_names[record["label"]] == row.label
        assert (record["width"], record["height"]) == (20, 24)
    again = pickle.loads(pickle.dumps(records))
    assert again[11]["image"] == records[11]["image"]
    left = sorted(path.name for path in (tmp_path / "cell_folder").iterdir())
    assert left == ["config"]


def test_large_sets_become_several_splits(class_folder, tmp_path, monkeypatch):
    # TFDS without TensorFlow cannot write a split beyond 1 GB; here the limit is 2 kB.
    monkeypatch.setattr(builders, "MAX_SPLIT_BYTES", 2000)
    dataset = prepare_dataset(
        "cell_folder", class_folder({"a": 8, "b": 8}), tmp_path / "data", progress=False
    )
    assert len(list(dataset.directory.glob("*cells_*"))) > 3
    for i in range(len(dataset)):
        assert hashlib.sha256(dataset.read(i)).hexdigest() == dataset.records.sha256[i]


def test_pbc_wants_its_eight_classes(class_folder, tmp_path):
    root = class_folder({"basophil": 1, "lymphocyte": 1, "blast": 1})
    with pytest.raises(DataError, match=r"lacks eosinophil.*also has blast.*cell_folder"):
        prepare_dataset("pbc", root, tmp_path / "data", progress=False)


def test_class_without_usable_images(class_folder, tmp_path):
    root = class_folder({"a": 2, "b": 1})
    (root / "b/b_000.jpg").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"class 'b' .* has no usable image"):
        prepare_dataset("cart", root, tmp_path / "data", progress=False)
    assert not list((tmp_path / "data").rglob("*array_record*"))


def test_file_that_changes_during_the_build(class_folder, tmp_path, encode):
    root = class_folder({"a": 2, "b": 2})
    source = open_source(root)
    audit = audit_source(source, progress=False)
    (root / "b/b_001.jpg").write_bytes(encode(99))
    directory = tmp_path / "cart" / "config" / RECORD_VERSION
    with pytest.raises(DataError, match=r"b/b_001\.jpg changed"):
        record_store.build("cart", source, audit, directory, progress=False)
    assert not directory.exists()
    assert [path.name for path in (tmp_path / "cart").iterdir()] == ["config"]


def test_two_builds_at_once(class_folder, tmp_path):
    root = class_folder({"a": 10, "b": 10})
    results = []

    def prepare():
        results.append(prepare_dataset("cart", root, tmp_path / "data", progress=False))

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert len({result.directory for result in results}) == 1
    assert len(results[0].read(0)) > 100


KILLED = """
import sys, time
from rcmnet_jax.data import builders, prepare_dataset
read = builders.CellBuilder._read
def slow(self, files, row):
    print("building", flush=True)
    time.sleep(0.2)
    return read(self, files, row)
builders.CellBuilder._read = slow
prepare_dataset("cart", sys.argv[1], sys.argv[2], progress=False)
"""


def test_killed_build_leaves_nothing_that_looks_finished(class_folder, tmp_path):
    root = class_folder({"a": 50, "b": 50})
    data = tmp_path / "data"
    command = [sys.executable, "-c", KILLED, str(root), str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    assert list((data / "cart").glob(".building-*"))
    assert not list((data / "cart").glob("*/1.0.0"))
    started = time.monotonic()
    dataset = prepare_dataset("cart", root, data, progress=False)
    # The lock of the killed process is gone with it.
    assert time.monotonic() - started < 5
    assert len(dataset) == 100
    assert not list((data / "cart").glob(".building-*"))


QUIET = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from rcmnet_jax.data import prepare_dataset
dataset = prepare_dataset("cell_folder", sys.argv[1], sys.argv[2], progress=False)
assert dataset.read(0)
assert not {"tensorflow", "jax"} & set(sys.modules)
"""


def test_no_network_no_home_no_noise(class_folder, tmp_path):
    assert socket.socket  # the child replaces it
    home = tmp_path / "home"
    home.mkdir()
    result = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            QUIET,
            str(class_folder({"a": 2, "b": 2})),
            str(tmp_path / "data"),
        ],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == result.stderr == ""
    assert list(home.rglob("*")) == []
