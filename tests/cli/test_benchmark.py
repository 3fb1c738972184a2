"""``rcmnet benchmark`` and what is behind it, without measuring anything for long."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cases, results_table, turns
from benchmarks.cases import Case
from benchmarks.flops import matrix_flops
from benchmarks.turns import Side, SideError
from rcmnet_jax.cli import benchmark
from rcmnet_jax.models import MODELS, create_model
from tests.models.noise import shapes_of


def test_the_command_offers_what_the_plan_has():
    assert set(benchmark.SIZES) == set(cases.SIZES)
    assert tuple(cases.TASKS) == benchmark.TASKS


def test_an_interpreter_without_torch_is_told(rcmnet_error, tmp_path):
    line = rcmnet_error("benchmark", "--torch-python", tmp_path / "python", "--out", tmp_path)
    assert "has no torch" in line
    assert "--no-torch" in line


def test_outside_a_checkout_it_says_where_to_run(rcmnet_error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark.rcmnet_jax, "__file__", str(tmp_path / "site" / "a" / "b.py"))
    assert "in a checkout of rcmnet-jax" in rcmnet_error("benchmark", "--no-torch")


@pytest.mark.parametrize("argument", ["--rounds=0", "--images=0", "--cores=-1", "--seconds=-1"])
def test_numbers_that_make_no_sense(rcmnet_error, argument):
    assert argument.split("=")[0] in rcmnet_error("benchmark", "--no-torch", argument)


def test_cases_leave_out_what_a_network_cannot_take():
    found = cases.cases_of(MODELS, (363, 64, 28), dtype="float32")
    assert {case.model for case in found if case.size == 28} == {
        name for name, network in MODELS.items() if network.is_resnet
    }
    assert [
        c.batch for c in cases.cases_of(["rcmnet"], [64], dtype="float32", batches=(8, 16))
    ] == [
        8,
        16,
    ]
    assert Case("rcmnet", 363, 16).shape == (16, 363, 360, 3)


def test_nothing_to_measure_is_told(rcmnet_error, tmp_path):
    out = tmp_path / "out"
    line = rcmnet_error(
        *("benchmark", "--no-torch", "--models", "alexnet", "vgg19", "--sizes", "28", "--out", out)
    )
    assert "alexnet at 28 pixels: it takes 63 at least" in line
    assert "vgg19 at 28 pixels: it takes 32 at least" in line
    assert not out.exists()


def result(batch: int, ours: float, eager: float, compiled: float) -> dict:
    """As `turns.measure_case` gives it, of images a second."""
    speeds = {"ours": ours, "torch_eager": eager, "torch_compiled": compiled}
    turns_of = {
        side: {"seconds": [1 / s, 2 / s, 0.5 / s], "cpu_seconds": [2 / s]}
        for side, s in speeds.items()
    }
    return {
        "case": dataclasses.asdict(Case("rcmnet", 64, batch, "bfloat16")),
        "sides": {side: {"device": "x", "versions": {}} for side in speeds},
        "failed": {"torch_compiled, grad_cam": "no"},
        "deviation": {},
        "flops": 1e9,
        "tasks": {"train": turns_of},
    }


def test_each_side_counts_with_its_best_batch_and_the_ratio_is_over_the_best_other():
    (row,) = results_table.rows_of(
        [result(8, 100, 90, 80), result(16, 90, 95, 120)], peak_tflops=1.0
    )
    assert row["sides"]["ours"]["batch"] == 8
    assert row["sides"]["torch_compiled"]["batch"] == 16
    assert row["sides"]["ours"] | {"low": 50, "high": 200} == pytest.approx(row["sides"]["ours"])
    assert row["ratio"] == pytest.approx(100 / 120)
    # Forward and backward are three times a billion operations, of a thousand billion a second.
    assert row["sides"]["ours"]["utilisation"] == pytest.approx(0.3)


def test_the_page_has_every_row_and_what_was_not_measured(tmp_path):
    results = [result(8, 100, 90, 80)]
    content = {
        "date": "today",
        "command": "rcmnet benchmark",
        "load": 0.5,
        "rounds": 3,
        "cores": 1,
        "sides": results[0]["sides"],
        "results": results,
        "rows": results_table.rows_of(results, None),
        "left_out": cases.left_out(["alexnet", "rcmnet"], [28, 64]),
    }
    _, page = results_table.write(content, tmp_path)
    text = page.read_text()
    assert "| rcmnet | 64 | train | 100 (50 to 200), batch 8 |" in text
    assert "| 1.11 |" in text
    assert "torch_compiled, grad_cam: no" in text
    assert "Not measured: alexnet at 28 pixels: it takes 63 at least" in text
    assert text.count("Not measured") == 2


def test_peaks_are_of_the_card_that_is_named():
    assert results_table.peak_of("NVIDIA H100 80GB HBM3", "bfloat16") == 989
    assert results_table.peak_of("NVIDIA L4 x 1 (gpu)", "bfloat16") == 121
    assert results_table.peak_of("NVIDIA L40S", "bfloat16") == 362
    assert results_table.peak_of("NVIDIA H100", "float32") is None
    assert results_table.peak_of("cpu", "bfloat16") is None


# No image of two has its map on a kink.
FIRM = np.zeros(2, bool)


def test_another_network_is_noticed_before_anything_is_timed(tmp_path):
    case = Case("rcmnet", 28, 2)
    files = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(files[0], logits=np.ones(3), loss=2.0)
    np.savez(files[1], logits=np.ones(3), loss=2.1)
    with pytest.raises(SideError, match="loss of torch_eager deviates by"):
        turns._deviation(*files, case, "torch_eager", FIRM)
    np.savez(files[1], logits=np.ones(3) * 1.0001, loss=2.0)
    assert turns._deviation(*files, case, "torch_eager", FIRM)["logits"] == pytest.approx(
        1e-4, rel=1e-3
    )
    np.savez(files[1], logits=np.ones(3), loss=np.nan)
    with pytest.raises(SideError, match="loss of torch_eager is not finite"):
        turns._deviation(*files, case, "torch_eager", FIRM)
    with pytest.raises(SideError, match="loss of ours is not finite"):
        turns._deviation(*files[::-1], case, "torch_eager", FIRM)


def test_bfloat16_is_compared_by_the_whole_of_an_output(tmp_path):
    case = Case("rcmnet", 28, 2, "bfloat16")
    files = tmp_path / "a.npz", tmp_path / "b.npz"
    maps = np.random.default_rng(0).standard_normal((2, 500))
    rounded = maps.copy()
    rounded[0, 0] += 0.2 * np.abs(maps).max()
    np.savez(files[0], grad_cam=maps)
    np.savez(files[1], grad_cam=rounded)
    assert turns._deviation(*files, case, "torch_eager", FIRM)["grad_cam"] < 0.05
    np.savez(files[1], grad_cam=maps[::-1])
    with pytest.raises(SideError, match="grad_cam"):
        turns._deviation(*files, case, "torch_eager", FIRM)


def test_only_maps_that_differ_from_themselves_are_left_out(tmp_path):
    case = Case("vgg19", 64, 32)
    files = tmp_path / "a.npz", tmp_path / "b.npz"
    maps = np.random.default_rng(0).standard_normal((32, 4, 4))
    moves = np.full(32, 1e-5)
    moves[3] = 0.05
    np.savez(files[0], grad_cam=maps, grad_cam_moves=moves)
    kinks = turns._on_kinks(files[0], case)
    assert np.flatnonzero(kinks).tolist() == [3]
    # Only that image may differ.
    theirs = maps.copy()
    theirs[3] += 0.05
    np.savez(files[1], grad_cam=theirs)
    assert turns._deviation(*files, case, "torch_eager", kinks)["grad_cam"] == 0
    theirs[4] += 0.05
    np.savez(files[1], grad_cam=theirs)
    with pytest.raises(SideError, match="grad_cam of torch_eager deviates"):
        turns._deviation(*files, case, "torch_eager", kinks)
    # If every tenth did so, the rest would say little.
    np.savez(files[0], grad_cam=maps, grad_cam_moves=np.where(np.arange(32) % 10, 1e-5, 0.05))
    with pytest.raises(SideError, match="4 of 32 Grad-CAM maps move past"):
        turns._on_kinks(files[0], case)
    # Half precision rounds by more than that anyway.
    half = Case("vgg19", 64, 32, "bfloat16")
    assert not turns._on_kinks(files[0], half).any()


@pytest.mark.parametrize(
    ("model", "giga_products"), [("resnet18", 1.814), ("alexnet", 0.714), ("vgg19", 19.632)]
)
def test_operations_are_those_of_the_plain_network(monkeypatch, model, giga_products):
    """torchvision's figures for 224x224 and 1,000 classes, whatever formulation is quicker here."""
    network = create_model(model, 1000)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = shapes_of(network, image.shape)
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        apply = functools.partial(network.apply, train=False)
        assert matrix_flops(apply, variables, image) / 2e9 == pytest.approx(giga_products, abs=1e-3)


def test_sides_can_be_left_out():
    assert cases.sides(torch=True) == ("ours", "torch_eager", "torch_compiled")
    assert cases.sides(torch=True, eager=False) == ("ours", "torch_compiled")
    assert cases.sides(torch=False) == ("ours",)


@pytest.mark.parametrize("ended", [False, True])
def test_a_side_that_cannot_start_is_one_line(tmp_path, ended):
    side = Side("torch_eager", sys.executable, 1, tmp_path / "log")
    if ended:
        # Then already the request cannot be sent.
        side._process.wait()
    with pytest.raises(SideError, match="torch_eager"):
        side.ask("prepare", case={}, weights="", compiled=False)
    side.close()
