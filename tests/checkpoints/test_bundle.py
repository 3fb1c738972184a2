"""Bundles: whole, of another time and machine, damaged, and made to do harm."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from rcmnet_jax.checkpoints import load_model, read_bundle, tree_sha256, write_bundle
from rcmnet_jax.checkpoints.bundle import in_precision, read_card
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.inference.gate import NOT_A_CELL, UNLIKE
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.models import create_model
from rcmnet_jax.prediction import open_classifier
from tests.models.noise import noise_variables

KEPT = Path(__file__).parent / "bundles"
OPTIONS = {"name": "rcmnet", "width": 4, "reduction": 4, "stage_sizes": [1, 1, 1, 1]}


@functools.cache
def network_of():
    model = create_model(num_classes=3, **{**OPTIONS, "stage_sizes": (1, 1, 1, 1)})
    return model, noise_variables(model, (1, 32, 32, 3))


def restored_of() -> TrainedNetwork:
    model, variables = network_of()
    return TrainedNetwork(
        model=model,
        variables=jax.tree.map(np.copy, variables),
        class_names=("a", "b", "ç"),
        preprocess=Preprocess(32, 32),
        mean=(0.1, 0.2, 0.30000001),
        std=(0.3, 0.2, 0.1),
        step=7,
        meta={"config": {"model": OPTIONS}, "data": {"name": "x"}},
        temperature=1.25,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.rcmnet"
    write_bundle(path, restored_of(), card="# card", record={"licence": "mine"})
    return path


def rewritten(path: Path, out: Path, **changes) -> Path:
    """The bundle with some of its files replaced; None leaves one out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()} | changes
        for name, data in contents.items():
            if data is not None:
                new.writestr(name, data)
    return out


def record_with(path: Path, **changes) -> bytes:
    """The record with entries changed, and a hash that fits again: what an attacker would do."""
    with zipfile.ZipFile(path) as archive:
        record = json.loads(archive.read("bundle.json"))
    record |= changes
    del record["sha256"]
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    record["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    return json.dumps(record).encode()


def with_weights(path: Path, out: Path, weights: dict[str, np.ndarray]) -> Path:
    """The bundle with other arrays, hashes that fit included."""
    data = safetensors.numpy.save(weights)
    with zipfile.ZipFile(path) as archive:
        files = json.loads(archive.read("bundle.json"))["files"]
    files["weights.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record = record_with(path, files=files)
    return rewritten(path, out, **{"bundle.json": record, "weights.safetensors": data})


def test_a_network_comes_back_bit_for_bit_with_all_that_belongs_to_it(bundle):
    before, after = restored_of(), load_model(bundle)
    assert tree_sha256(after.variables) == tree_sha256(before.variables)
    for field in ("class_names", "preprocess", "mean", "std", "step", "temperature", "model"):
        if field != "model":
            assert getattr(after, field) == getattr(before, field), field
    assert after.gate is None
    assert after.meta["data"] == {"name": "x"}
    assert after.meta["bundle"]["licence"] == "mine"
    assert read_card(bundle) == "# card"
    x = np.zeros((1, 32, 32, 3), np.float32)
    ours, theirs = (r.model.apply(r.variables, x, train=False) for r in (before, after))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["vgg19", "alexnet", "resnet18"])
def test_networks_without_batch_statistics_or_with_nested_options(tmp_path, name):
    options = {
        "vgg19": {"stages": [[1, 2], [1, 3], [1, 4], [1, 5], [1, 6]], "hidden": 7},
        "alexnet": {"hidden": 7},
        "resnet18": {"width": 4, "norm": "group"},
    }[name]
    model = create_model(name, 3, **options)
    variables = noise_variables(model, (1, 64, 64, 3))
    meta = {"config": {"model": {"name": name, **options}}}
    network = dataclasses.replace(
        restored_of(), model=model, variables=variables, preprocess=Preprocess(64, 64), meta=meta
    )
    write_bundle(tmp_path / "m.rcmnet", network, card="")
    after = load_model(tmp_path / "m.rcmnet")
    assert tree_sha256(after.variables) == tree_sha256(variables)
    jax.eval_shape(
        lambda x: after.model.apply(after.variables, x, train=False), np.ones((1, 64, 64, 3))
    )


def test_half_precision_halves_the_file_and_keeps_the_statistics(bundle, tmp_path):
    digest = write_bundle(tmp_path / "half.rcmnet", restored_of(), card="", precision="float16")
    half = load_model(tmp_path / "half.rcmnet")
    full = restored_of()
    assert (
        tree_sha256(half.variables)
        == digest
        == tree_sha256(in_precision(full.variables, "float16"))
    )
    assert tree_sha256(half.variables["batch_stats"]) == tree_sha256(full.variables["batch_stats"])
    kernel = full.variables["params"]["head"]["kernel"]
    np.testing.assert_allclose(half.variables["params"]["head"]["kernel"], kernel, rtol=1e-3)
    assert (tmp_path / "half.rcmnet").stat().st_size < 0.7 * bundle.stat().st_size


def test_half_precision_refuses_what_it_cannot_hold(tmp_path):
    network = restored_of()
    network.variables["params"]["head"]["bias"][0] = 1e5
    with pytest.raises(UserError, match=r"params/head/bias.*--precision float32"):
        write_bundle(tmp_path / "half.rcmnet", network, card="", precision="float16")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_the_same_bundle(tmp_path):
    write_bundle(tmp_path / "model", restored_of(), card="# card", folder=True)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md",
        "bundle.json",
        "weights.safetensors",
    ]
    assert tree_sha256(load_model(tmp_path / "model").variables) == tree_sha256(
        restored_of().variables
    )
    with pytest.raises(CheckpointError, match="exists already"):
        write_bundle(tmp_path / "model", restored_of(), card="", folder=True)


def test_the_same_network_gives_the_same_bytes(bundle, tmp_path):
    write_bundle(tmp_path / "b.rcmnet", restored_of(), card="# card", record={"licence": "mine"})
    assert (tmp_path / "b.rcmnet").read_bytes() == bundle.read_bytes()


def test_the_kept_file_of_format_1_answers_as_it_did():
    with np.load(KEPT / "format1.npz") as expected:
        verdicts = open_classifier(KEPT / "format1.rcmnet").predict_pixels(expected["pixels"])
        np.testing.assert_allclose(verdicts.probabilities, expected["probabilities"], atol=1e-5)
        np.testing.assert_allclose(verdicts.score, expected["score"], rtol=1e-3)
        # When the file was written, all that is unlike the training images was "not a cell".
        three = np.where(verdicts.status == UNLIKE, NOT_A_CELL, verdicts.status)
        assert three.tolist() == expected["status"].tolist()
    assert set(three) == {"accept", "review", "not a cell"}


def test_opening_and_asking_loads_neither_orbax_nor_tfds_nor_the_configs():
    code = (
        "import sys, numpy as np\n"
        "for name in ('orbax', 'tensorflow_datasets', 'grain', 'ml_collections', 'optax'):\n"
        "    sys.modules[name] = None\n"
        "from rcmnet_jax.prediction import open_classifier\n"
        f"classifier = open_classifier({str(KEPT / 'format1.rcmnet')!r})\n"
        "print(classifier.predict_pixels(np.zeros((1, 32, 32, 3), np.uint8)).status[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "not a cell", done.stderr


@pytest.mark.parametrize("where", [0.02, 0.5, 0.9])
def test_a_flipped_bit_is_found(bundle, tmp_path, where):
    data = bytearray(bundle.read_bytes())
    data[int(where * len(data))] ^= 4
    (tmp_path / "flipped.rcmnet").write_bytes(data)
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "flipped.rcmnet")


@pytest.mark.parametrize("size", [0, 10, 1000, -1, -100])
def test_a_cut_file_is_told(bundle, tmp_path, size):
    data = bundle.read_bytes()
    (tmp_path / "cut.rcmnet").write_bytes(data[:size])
    with pytest.raises(CheckpointError, match=r"cut\.rcmnet") as error:
        load_model(tmp_path / "cut.rcmnet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "README.md", "bundle.json"])
def test_a_file_exchanged_in_a_folder_is_found(tmp_path, name):
    write_bundle(tmp_path / "model", restored_of(), card="# card", folder=True)
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes().replace(b'"step": 7', b'"step": 8') + b" ")
    if name == "bundle.json":
        path.write_bytes(path.read_bytes().replace(b'"temperature": 1.25', b'"temperature": 9.25'))
    with pytest.raises(CheckpointError, match=f"{name} in .*(not what was written|was changed)"):
        load_model(tmp_path / "model")


def test_a_newer_format_is_told(bundle, tmp_path):
    newer = {"bundle.json": record_with(bundle, format_version=2)}
    with pytest.raises(CheckpointError, match="format 2, this version reads 1: update"):
        load_model(rewritten(bundle, tmp_path / "newer.rcmnet", **newer))


def test_other_files_are_told(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"not a zip")
    with pytest.raises(CheckpointError, match="cannot be opened as a bundle"):
        load_model(tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    with pytest.raises(CheckpointError, match=r"is no bundle: it holds 'a\.jpg'"):
        load_model(tmp_path / "photos.zip")


class TestHarm:
    """Files made to do harm: nothing is written, executed, or read outside."""

    def test_a_name_that_leads_out_is_refused_and_nothing_is_written(self, bundle, tmp_path):
        evil = rewritten(bundle, tmp_path / "evil.rcmnet", **{"../../evil.txt": b"x"})
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(CheckpointError, match="is no bundle"):
            load_model(evil)
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_deflated_bomb_is_refused_before_it_is_read(self, bundle, tmp_path):
        bomb = tmp_path / "bomb.rcmnet"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bundle.json", b" " * 200_000_000)
        assert bomb.stat().st_size < 1_000_000
        with pytest.raises(CheckpointError, match="compressed"):
            load_model(bomb)

    def test_the_same_name_twice_is_refused(self, bundle, tmp_path):
        double = shutil.copy(bundle, tmp_path / "double.rcmnet")
        with (
            zipfile.ZipFile(double, "a") as archive,
            pytest.warns(UserWarning, match="Duplicate name"),
        ):
            archive.writestr("bundle.json", b"{}")
        with pytest.raises(CheckpointError, match="twice"):
            load_model(double)

    def test_a_record_beyond_its_limit_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "large.rcmnet", "w") as archive:
            archive.writestr("bundle.json", b" " * (16 * 2**20 + 1))
        with pytest.raises(CheckpointError, match="larger than"):
            load_model(tmp_path / "large.rcmnet")

    def test_links_in_a_folder_are_not_followed(self, tmp_path):
        write_bundle(tmp_path / "model", restored_of(), card="# card", folder=True)
        weights = tmp_path / "model" / "weights.safetensors"
        weights.rename(tmp_path / "elsewhere")
        weights.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CheckpointError, match="weights"):
            load_model(tmp_path / "model")
        weights.unlink()
        os.mkfifo(weights)
        with pytest.raises(CheckpointError, match="not a regular file"):
            load_model(tmp_path / "model")

    def test_pickles_are_never_opened(self, bundle, tmp_path):
        harm = b"cos\nsystem\n(S'touch " + str(tmp_path / "harmed").encode() + b"'\ntR."
        with zipfile.ZipFile(bundle) as archive:
            files = json.loads(archive.read("bundle.json"))["files"]
        files["weights.safetensors"]["sha256"] = hashlib.sha256(harm).hexdigest()
        record = record_with(bundle, files=files)
        changes = {"bundle.json": record, "weights.safetensors": harm}
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_model(rewritten(bundle, tmp_path / "pickle.rcmnet", **changes))
        assert not (tmp_path / "harmed").exists()

    @pytest.mark.parametrize(
        "model",
        [
            {"name": "rcmnet", "stage_sizes": [10**9, 1, 1, 1]},
            {"name": "rcmnet", "stage_sizes": [1] * 10**5},
            {"name": "vgg19", "stages": [[10**4, 1]]},
            {"name": "rcmnet", "width": 10**12},
            {"name": "rcmnet", "width": "__import__('os')"},
            {"name": "os.system"},
            {"name": "rcmnet", "parent": {}},
            {"name": "rcmnet", "width": -1},
            ["rcmnet"],
            None,
        ],
    )
    def test_a_network_that_is_none_is_refused(self, bundle, tmp_path, model):
        changes = {"bundle.json": record_with(bundle, model=model)}
        with pytest.raises(CheckpointError):
            load_model(rewritten(bundle, tmp_path / "odd.rcmnet", **changes))

    @pytest.mark.parametrize(
        "changes",
        [
            {"class_names": ["only one"]},
            {"class_names": None},
            {"preprocess": {"version": 1, "height": 10**9, "width": 10**9}},
            {"preprocess": {"version": 99}},
            {"normalization": {"mean": [1, 2], "std": [1, 2, 3]}},
            {"normalization": {}},
            {"temperature": "hot"},
            {"meta": None},
            {"files": {}},
            {"gate": {"version": 1}},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_odd_records_are_refused_in_one_line(self, bundle, tmp_path, changes):
        record = {"bundle.json": record_with(bundle, **changes)}
        with pytest.raises(CheckpointError) as error:
            load_model(rewritten(bundle, tmp_path / "odd.rcmnet", **record))
        assert "\n" not in str(error.value)

    def test_arrays_of_another_network_are_refused(self, bundle, tmp_path):
        with zipfile.ZipFile(bundle) as archive:
            weights = safetensors.numpy.load(archive.read("weights.safetensors"))
        weights["params/head/bias"] = np.zeros(4, np.float32)
        with pytest.raises(CheckpointError, match="weights"):
            read_bundle(with_weights(bundle, tmp_path / "a.rcmnet", weights))
        del weights["params/head/bias"]
        with pytest.raises(CheckpointError, match="weights"):
            read_bundle(with_weights(bundle, tmp_path / "b.rcmnet", weights))
