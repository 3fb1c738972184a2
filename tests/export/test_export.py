"""``rcmnet export``: what is fitted, checked, written, and refused."""

import dataclasses
import json
import shutil
import zipfile

import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_model
from rcmnet_jax.checkpoints.bundle import read_card
from rcmnet_jax.cli.main import main
from rcmnet_jax.export.parity import Parity, ParityError, compare_logits, logits_by_network
from rcmnet_jax.inference.gate import STATUSES
from rcmnet_jax.interop.torch import to_torch_state_dict
from rcmnet_jax.interop.torch_files import read_torch_file
from rcmnet_jax.prediction import open_classifier
from rcmnet_jax.training.loop import train
from tests.training.runs import config_of, saved_arrays


@pytest.fixture(scope="module")
def cells(write_cell_folder, tmp_path_factory):
    """Enough images for a temperature and a gate: 57 to validate, 48 to test."""
    return write_cell_folder(tmp_path_factory.mktemp("source") / "cells", per_class=80)


@pytest.fixture(scope="module")
def run(cells, tmp_path_factory):
    """A run of its own, with a validation part worth the name."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(config_of(cells, "epochs=1", **{"data.split.val_fraction": 0.3}), workdir)
    return workdir


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "model.rcmnet"
    argv = ["export", "--workdir", str(run), "--out", str(out), "--licence", "CC0"]
    assert main([*argv, "--citation", "Me, 2026"]) == 0
    return out


def test_a_bundle_is_the_run_with_temperature_and_gate(run, bundle):
    before, after = load_model(run), load_model(bundle)
    assert before.temperature is None
    assert after.temperature > 0
    assert after.gate.fitted["val_images"] == 57
    assert (after.class_names, after.mean, after.std, after.step) == (
        *(before.class_names, before.mean, before.std, before.step),
    )
    record = after.meta["bundle"]
    assert record["parity"]["part"] == "test"
    assert (record["parity"]["same"], record["parity"]["images"]) == (48, 48)
    facts = after.meta["export"]["facts"]
    for part, count in (("val", 57), ("test", 48)):
        assert facts[part]["images"] == count == sum(facts[part]["status"].values())
        assert tuple(facts[part]["status"]) == STATUSES


def test_no_folder_of_this_machine_is_in_a_bundle(run, bundle, cells):
    with zipfile.ZipFile(bundle) as archive:
        text = archive.read("bundle.json").decode() + archive.read("README.md").decode()
    assert load_model(bundle).meta["config"]["data"]["source"] == "cells"
    for path in (cells.parent, run.parent):
        assert str(path) not in text
    assert '"platform"' not in text


def test_the_card_tells_the_run(bundle):
    card = read_card(bundle)
    network = load_model(bundle)
    facts = network.meta["export"]["facts"]["test"]
    for text in (
        "resnet18 for 3 classes",
        "CC0",
        "- Me, 2026",
        "arXiv 2205.04230",
        network.meta["data"]["sha256"],
        network.meta["split"]["sha256"],
        f"{facts['correct']}/48",
        f"{facts['status']['accept']}/48",
        "image-level: an upper bound",
        "no medical device",
    ):
        assert text in card, text


def test_a_bundle_is_evaluated_explained_and_trained_from_like_a_run(bundle, run, cells, tmp_path):
    argv = ["evaluate", "--workdir", str(bundle), "--source", str(cells)]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    now, then = (
        json.loads((folder / "test_metrics.json").read_text())["accuracy"]
        for folder in (tmp_path, run)
    )
    assert now == then
    changes = {"init.checkpoint": str(bundle), "init.trainable": ("head/.*",)}
    train(config_of(cells, "epochs=1", **changes, **{"init.batch_norm": "frozen"}), tmp_path / "b")
    before = saved_arrays(run / "checkpoints" / "best")
    after = saved_arrays(tmp_path / "b" / "checkpoints" / "best")
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {"['params']['head']['bias']", "['params']['head']['kernel']"}


def test_a_bundle_needs_a_folder_to_write_scores_to(bundle, cells, capsys):
    assert main(["evaluate", "--workdir", str(bundle), "--source", str(cells)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["onnx", "stablehlo", "safetensors"])
def test_other_formats_are_checked_on_the_test_part_and_say_so(run, tmp_path, capsys, ending):
    out = tmp_path / f"model.{ending}"
    assert main(["export", "--workdir", str(run), "--out", str(out)]) == 0
    assert "48/48 same predictions on the test images" in capsys.readouterr().out
    if ending == "onnx":
        onnx = pytest.importorskip("onnx", reason="onnx is not installed")
        meta = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    elif ending == "stablehlo":
        with zipfile.ZipFile(out) as archive:
            meta = json.loads(archive.read("meta.json"))
        meta = {k: v if isinstance(v, str) else json.dumps(v) for k, v in meta.items()}
    else:
        file = read_torch_file(out)
        meta = file.metadata
        expected = to_torch_state_dict("resnet18", load_model(run).variables)
        assert file.state.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(file.state[name], array)
    assert json.loads(meta["class_names"]) == ["blue", "pale", "pink"]
    parity = json.loads(meta["parity"])
    assert (parity["same"], parity["images"], parity["part"]) == (48, 48, "test")
    assert parity["worst_probability"] <= 1e-4
    assert len(json.loads(meta["mean"])) == 3


def test_too_few_validation_images_fit_nothing_and_nothing_is_accepted(
    write_cell_folder, tmp_path, capsys, caplog
):
    few = write_cell_folder(tmp_path / "few", per_class=20)
    train(config_of(few, "epochs=1", **{"data.split.val_fraction": 0.3}), tmp_path / "run")
    out = tmp_path / "few.rcmnet"
    assert main(["export", "--workdir", str(tmp_path / "run"), "--out", str(out)]) == 0
    reasons = [
        f"{what} needs at least 50 validation images, and there are 12"
        for what in ("a temperature", "a gate")
    ]
    assert f"not fitted: {'; '.join(reasons)}: every image gets the status review" in caplog.text
    restored = load_model(out)
    assert (restored.temperature, restored.gate) == (None, None)
    assert restored.meta["export"]["not_fitted"] == reasons
    facts = restored.meta["export"]["facts"]["test"]
    assert facts["status"] == dict.fromkeys(STATUSES, 0) | {"review": 12}
    assert facts["ece"]["before"] == facts["ece"]["after"]
    card = read_card(out)
    assert "every image is for review" in card
    assert all(reason in card for reason in reasons)
    verdicts = open_classifier(out).predict_files(sorted(few.glob("blue/*"))[:3])
    assert verdicts.status.tolist() == ["review"] * 3
    argv = ["predict", "--model", str(out), "--images", str(few), "--out", str(tmp_path / "p.csv")]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "accept 0, review 60" in printed
    assert f"not calibrated: {'; '.join(reasons)}" in printed


def test_without_the_images_it_says_so_and_fits_nothing(run, tmp_path, capsys):
    out = tmp_path / "bare.rcmnet"
    assert main(["export", "--workdir", str(run), "--out", str(out), "--no-data"]) == 0
    assert "on the noise images" in capsys.readouterr().out
    network = load_model(out)
    assert (network.temperature, network.gate) == (None, None)
    assert "no temperature and no out-of-distribution thresholds" in read_card(out)


def test_images_that_moved_are_told_and_found_with_source(
    bundle, cells, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    again = tmp_path / "again.rcmnet"
    argv = ["export", "--workdir", str(bundle), "--out", str(again)]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert "warning: the run's images are not at hand" in captured.err
    # What was fitted when they were there stays.
    assert load_model(again).temperature == load_model(bundle).temperature
    scores = "## Scores", "## Preprocessing"
    (part, same) = (read_card(p).split(scores[0])[1].split(scores[1])[0] for p in (again, bundle))
    assert part == same
    moved = shutil.copytree(cells, tmp_path / "moved")
    assert main([*argv, "--source", str(moved)]) == 0
    assert "48/48 same predictions on the test" in capsys.readouterr().out
    assert main([*argv, "--source", str(tmp_path / "nowhere")]) == 2


def test_an_export_that_is_another_network_is_refused(bundle):
    # Softened, since on noise the network is so sure that its probabilities hardly move.
    network = dataclasses.replace(load_model(bundle), temperature=20.0)
    live = logits_by_network(network, 64)

    def off(by):
        return lambda pixels: live(pixels) + by

    def compare(logits_of):
        return compare_logits(network, logits_of, None, what="copy")

    exact = compare(off(np.zeros(3)))
    assert (exact.same, exact.images, exact.worst_probability) == (150, 150, 0)
    with pytest.raises(ParityError, match="nothing was written"):
        compare(off(np.array([0.1, 0, 0])))
    with pytest.raises(ParityError):
        compare(off(np.array([1e3, 0, 0])))


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"same": 11}, False),
        ({"worst_probability": 2e-4}, False),
        ({"worst_probability": 2e-4, "same": 3, "tolerance": None}, True),
        ({"worst_probability": float("nan")}, False),
    ],
)
def test_what_counts_as_agreement(changes, holds):
    parity = Parity("test", 12, 12, 1e-5, 1e-6)
    assert dataclasses.replace(parity, **changes).holds is holds


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--out", "m.onnx", "--precision", "float16"], "--folder and --precision are for bundles"),
        (["--out", "m.rcmnet", "--batch-size", "0"], "--batch-size"),
        (["--out", "m.rcmnet", "--no-data", "--source", "x"], "contradict"),
        (["--out", "m.pt"], "no format ends in .pt: name a file in .rcmnet, .onnx, .stablehlo,"),
        (["--out", "m.safetensor"], ".safetensors, .pth, or give --format"),
    ],
)
def test_arguments_that_cannot_be(run, argv, told, capsys):
    assert main(["export", "--workdir", str(run), *argv]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [["--out", "model"], ["--out", "m.v2", "--folder"], ["--out", "m.v2", "--format=bundle"]],
)
def test_places_without_a_known_ending_that_are_bundles(argv, tmp_path, capsys):
    assert main(["export", "--workdir", str(tmp_path / "no_run"), *argv]) == 2
    assert "no_run" in capsys.readouterr().err


def test_half_precision_in_a_folder(run, tmp_path, capsys):
    out = tmp_path / "half"
    argv = [
        "export",
        "--workdir",
        str(run),
        "--out",
        str(out),
        "--folder",
        "--precision",
        "float16",
    ]
    assert main(argv) == 0
    assert load_model(out).meta["bundle"]["parity"]["tolerance"] is None
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    assert open_classifier(out).predict_pixels(pixels).status[0] == "not a cell"
