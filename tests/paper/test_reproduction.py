"""The whole command on drawn cells: trains, skips what is done, and says what the tables hold."""

import csv
import json
import re
import time

import pytest

from rcmnet_jax.cli.main import main
from rcmnet_jax.errors import TrainingError
from rcmnet_jax.paper import plan
from rcmnet_jax.workdir.lock import locked_workdir


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
    monkeypatch.setattr("rcmnet_jax.paper.reproduction.write_pages", lambda *_, **__: None)
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
    out = capsys.readouterr().out
    assert out.count("failed: RCMNet") == 3
    assert out.count("is not finite") == 2
    assert "seed 0: the run whose weights it starts from failed" in out
    assert "not run" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--pbc is missing"),
        (["--quick", "--pbc", "x"], "draws its cells"),
        (["--quick", "--models", "resnet50"], "choose from resnet18"),
        (["--quick", "--size", "big"], "neither native nor a number"),
        (["--quick", "--hours", "0"], "--hours must be more than 0"),
        (["--status"], "plan.json cannot be read"),
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


@pytest.fixture
def trained_at_once(monkeypatch):
    """Trains nothing: a run is done as soon as it starts. Gives the folders trained."""
    trained = []

    def train(config, workdir):
        trained.append(workdir)
        workdir.mkdir(parents=True)
        metrics = {"accuracy": {"k": 3, "n": 4}}
        (workdir / "test_metrics.json").write_text(json.dumps(metrics))
        return {"test": metrics}

    monkeypatch.setattr("rcmnet_jax.paper.reproduction.train", train)
    monkeypatch.setattr("rcmnet_jax.paper.reproduction.write_pages", lambda *_, **__: None)
    monkeypatch.setattr("rcmnet_jax.paper.reproduction.collect", lambda runs: None)
    return trained


def test_hours_bound_what_is_started_and_the_rest_is_listed(
    tiny_quick, trained_at_once, tmp_path, monkeypatch, capsys
):
    minutes = {"pbc": 60, "scratch": 20, "transfer": 1}
    monkeypatch.setattr(
        "rcmnet_jax.paper.reproduction._show_plan",
        lambda _, runs, done: {n: 60 * minutes[run.stage] for n, run in enumerate(runs)},
    )
    words = ["reproduce", "--quick", "--models", "resnet18", "--out", str(tmp_path)]
    assert main([*words, "--hours", "0.5"]) == 0
    assert [folder.parts[-3] for folder in trained_at_once] == ["scratch"]
    left = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left")]
    assert left == [
        "left for another call: ResNet18, pbc, strict protocol, seed 0",
        "left for another call: ResNet18, transfer, strict protocol, seed 0 (starts from a run"
        " that is left)",
    ]
    assert main([*words, "--hours", "2"]) == 0
    assert [folder.parts[-3] for folder in trained_at_once] == ["scratch", "pbc", "transfer"]
    assert "left" not in capsys.readouterr().out


def test_progress_says_which_run_of_how_many(tiny_quick, trained_at_once, tmp_path, caplog):
    caplog.set_level("INFO")
    words = ["reproduce", "--quick", "--models", "resnet18", "--no-estimate"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    told = [record.getMessage() for record in caplog.records]
    assert "run 2 of 3: ResNet18, scratch, strict protocol, seed 0" in told
    assert any(line.startswith("run 2 of 3 done: 3/4 in ") for line in told)


def test_status_reads_every_run_and_touches_none(tiny_quick, tmp_path, monkeypatch, capsys):
    """Of a plan whose first run is done, whose second trains, and whose third was stopped."""
    monkeypatch.setattr("rcmnet_jax.paper.reproduction.train", lambda *_: pytest.fail("trained"))
    words = ["reproduce", "--quick", "--models", "resnet18,rcmnet", "--no-estimate"]
    with pytest.raises(pytest.fail.Exception):
        main([*words, "--out", str(tmp_path)])
    runs = tmp_path / "runs/strict"
    done, running, stopped = (
        runs / name for name in ("pbc/resnet18/seed0", "pbc/rcmnet/seed0", "scratch/rcmnet/seed0")
    )
    for folder in (done, running, stopped):
        folder.mkdir(parents=True)
    (done / "test_metrics.json").write_text(json.dumps({"accuracy": {"k": 7, "n": 8}}))
    for folder, epochs in ((running, 1), (stopped, 0)):
        rows = [{"kind": "epoch", "step": e, "epoch": float(e)} for e in range(1, epochs + 1)]
        rows.append({"kind": "step", "step": 99, "epoch": 2.5})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (stopped / ".lock").write_text("1")
    capsys.readouterr()
    with locked_workdir(running):
        before = {path: path.stat() for path in tmp_path.rglob("*")}
        # By a relative path from elsewhere, too.
        monkeypatch.chdir(tmp_path.parent)
        assert main(["reproduce", "--status", "--out", tmp_path.name]) == 0
        assert {path: path.stat() for path in tmp_path.rglob("*")}.keys() == before.keys()
        assert all(path.stat().st_mtime_ns == stat.st_mtime_ns for path, stat in before.items())
    *lines, total = capsys.readouterr().out.splitlines()
    states = [re.sub(r".* seed 0 +", "", line) for line in lines]
    today = time.strftime("%Y-%m-%d")
    assert states[0] == "done, 7/8"
    assert states[1].startswith(f"running, epoch 1 of 1 done, last entry {today}")
    assert states[2] == "not started"
    assert states[3].startswith("stopped, epoch 0 of 1 done")
    assert states[4:] == ["not started"] * 2
    assert total == "1 of 6 runs done"
