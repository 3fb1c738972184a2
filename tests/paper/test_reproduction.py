"""The whole command on drawn cells: trains, skips what is done, and says what the tables hold."""

import csv
import json
import re

import pytest

from rcmnet_jax.cli.main import main
from rcmnet_jax.errors import TrainingError
from rcmnet_jax.paper import plan


@pytest.fixture(scope="module")
def tiny_quick():
    """--quick, smaller still: one network of one block a stage."""
    with pytest.MonkeyPatch.context() as patch:
        small = {"size": 32, "epochs": 1, "batch": 8, "pbc_per_class": 5, "cart_per_class": 10}
        patch.setattr(plan, "QUICK", small)
        make = plan._make_quick

        def make_small(config, experiment):
            make(config, experiment)
            config.model.width = 8
            config.model.stage_sizes = (1, 1, 1, 1)
            config.log.tensorboard = False
            config.optim.warmup_epochs = 0.0

        patch.setattr(plan, "_make_quick", make_small)
        yield


@pytest.fixture(scope="module")
def reproduced(tiny_quick, tmp_path_factory):
    out = tmp_path_factory.mktemp("paper")
    arguments = ["reproduce", "--quick", "--models", "rcmnet", "--no-estimate", "--out", str(out)]
    assert main(arguments) == 0
    return out, arguments


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_table_is_there_with_the_counts_of_its_runs(reproduced):
    out, _ = reproduced
    for name, stage in (("table5", "pbc"), ("table6", "scratch"), ("table7", "transfer")):
        rows = rows_of(out / "tables" / f"{name}.csv")
        assert [row["network"] for row in rows] == ["RCMNet"]
        folder = out / "runs/strict" / stage / "rcmnet/seed0"
        accuracy = json.loads((folder / "test_metrics.json").read_text())["accuracy"]
        assert rows[0]["k/n by seed"] == f"{accuracy['k']}/{accuracy['n']}"
    total = rows_of(out / "tables/table1.csv")[8]
    assert (total["class"], total["test"]) == ("total", "8")
    assert rows_of(out / "tables/table4.csv")[-1]["RCMNet"] == "11,799,882"


@pytest.mark.slow
def test_the_report_is_one_file_that_says_the_cells_are_synthetic(reproduced):
    out, _ = reproduced
    page = (out / "report.html").read_text()
    assert "synthetic" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "99.63" in page
    for number in (2, 3, 8, 9, 10):
        assert f"Figure {number}" in page


@pytest.mark.slow
def test_both_protocols_stand_beside_each_other(tiny_quick, tmp_path):
    words = ["reproduce", "--quick", "--models", "resnet18,rcmnet", "--protocol", "both"]
    assert main([*words, "--seeds", "2", "--no-estimate", "--out", str(tmp_path)]) == 0
    for name, images in (("table5", 8), ("table6", 4), ("table7", 4)):
        rows = rows_of(tmp_path / "tables" / f"{name}.csv")
        assert [row["network"] for row in rows] == ["ResNet18", "RCMNet"]
        heads = list(rows[0])
        assert {"strict: mean, %", "paper: mean, %"} <= set(heads)
        text = (tmp_path / "tables" / f"{name}.csv").read_text()
        # Two-class test images count in six views in the paper's protocol.
        assert f"/{images * (1 if name == 'table5' else 6)}" in text
        # Two seeds of each are compared together, not the first alone.
        assert not rows[0]["RCMNet minus it, points (strict)"].endswith("*")
    assert "chooses the best epoch on the test part" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_second_call_trains_nothing(reproduced, monkeypatch, capsys):
    _, arguments = reproduced
    monkeypatch.setattr("rcmnet_jax.paper.reproduction.train", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr("rcmnet_jax.paper.reproduction.write_report", lambda *_, **__: None)
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("done") == 3


def test_a_run_that_fails_is_named_and_the_others_are_made(
    tiny_quick, tmp_path, monkeypatch, capsys
):
    def fail(config, workdir):
        raise TrainingError("loss inf at step 3 is not finite")

    monkeypatch.setattr("rcmnet_jax.paper.reproduction.train", fail)
    arguments = ["reproduce", "--quick", "--models", "rcmnet", "--no-estimate"]
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("failed: RCMNet") == 3
    assert "not run" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--pbc is missing"),
        (["--quick", "--pbc", "x"], "draws its cells"),
        (["--quick", "--models", "resnet50"], "choose from resnet18"),
        (["--quick", "--size", "big"], "neither native nor a number"),
    ],
)
def test_mistakes_take_one_line(arguments, message, tmp_path, capsys):
    assert main(["reproduce", *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1


def test_a_dry_run_shows_the_plan_only(tiny_quick, tmp_path, capsys):
    arguments = ["reproduce", "--quick", "--models", "rcmnet", "--dry-run", "--no-estimate"]
    assert main([*arguments, "--out", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.count("to do") == 3
    assert not (tmp_path / "new").exists()
