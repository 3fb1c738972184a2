"""``rcmnet evaluate``: what it writes, and what it refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from rcmnet_jax.cli.main import main
from rcmnet_jax.evaluation import read_predictions, write_predictions
from tests.checkpoints.damage import flip_bit


def test_the_test_part_scores_as_it_did_after_training(trained, tmp_path, capsys):
    assert main(["evaluate", "--model", str(trained), "--out", str(tmp_path / "out")]) == 0
    now, then = (
        json.loads((folder / "test_metrics.json").read_text())
        for folder in (tmp_path / "out", trained)
    )
    assert now["accuracy"] == then["accuracy"]
    assert now["accuracy"]["n"] == 12
    assert "written to" in capsys.readouterr().out


@pytest.mark.parametrize(("part", "size"), [("val", 3), ("train", 45)])
def test_other_parts_are_scored_without_dropping_an_image(trained, tmp_path, part, size):
    argv = ["evaluate", "--model", str(trained), "--out", str(tmp_path), "--part", part]
    assert main([*argv, "--batch-size", "7"]) == 0
    assert json.loads((tmp_path / f"{part}_metrics.json").read_text())["accuracy"]["n"] == size


def test_other_images_are_scored_with_the_networks_classes(trained, write_cell_folder, tmp_path):
    other = write_cell_folder(tmp_path / "other", per_class=4, size=40, seed=3)
    shutil.rmtree(other / "blue")
    argv = ["evaluate", "--model", str(trained), "--data", str(other), "--out", str(tmp_path)]
    assert main(argv) == 0
    assert json.loads((tmp_path / "external_metrics.json").read_text())["accuracy"]["n"] == 8


def test_images_of_one_class_are_scored_with_a_word_about_it(
    trained, write_cell_folder, tmp_path, capsys
):
    other = write_cell_folder(tmp_path / "other", per_class=4, size=40, seed=3)
    shutil.rmtree(other / "blue")
    shutil.rmtree(other / "pale")
    argv = ["evaluate", "--model", str(trained), "--data", str(other), "--out", str(tmp_path)]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "All images are pink: there is no AUC" in printed
    metrics = json.loads((tmp_path / "external_metrics.json").read_text())
    assert metrics["macro_auc"]["value"] is None
    assert metrics["accuracy"]["n"] == 4


@pytest.mark.parametrize("inside", ["", "checkpoints/best", "checkpoints/best/5"])
def test_a_model_is_a_run_or_a_checkpoint_in_it(trained, tmp_path, capsys, inside):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "test_metrics.json").unlink()
    assert main(["evaluate", "--model", str(run / inside)]) == 0
    # Scores go to the folder of the run, whichever way it was named.
    assert json.loads((run / "test_metrics.json").read_text())["accuracy"]["n"] == 12


def test_the_option_of_before_still_names_the_model(trained, tmp_path):
    assert main(["evaluate", "--workdir", str(trained), "--out", str(tmp_path)]) == 0


def test_images_that_moved(rcmnet_error, cells, write_cell_folder, tmp_path):
    from rcmnet_jax.training.loop import train
    from tests.training.runs import config_of

    source = shutil.copytree(cells, tmp_path / "cells")
    train(config_of(source, "epochs=1"), tmp_path / "run")
    source.rename(tmp_path / "moved")
    line = rcmnet_error("evaluate", "--model", tmp_path / "run")
    assert "cells does not exist" in line
    assert "--source" in line
    assert "--data" in line


def test_a_run_compares_with_itself(trained, tmp_path, capsys):
    argv = ["evaluate", "--compare", str(trained), str(trained), "--out", str(tmp_path)]
    assert main(argv) == 0
    assert (tmp_path / "comparison.json").exists()


def test_seeds_compare_one_by_one_and_all_together(trained, tmp_path, capsys):
    plain, other = tmp_path / "plain", tmp_path / "other"
    first = read_predictions(trained / "test_predictions.csv")
    for folder, seed, changed in ((plain, 0, 1), (plain, 1, 2), (other, 0, 5), (other, 1, 7)):
        probabilities = first.probabilities.copy()
        probabilities[:changed] = np.roll(probabilities[:changed], 1, axis=1)
        run = dataclasses.replace(first, probabilities=probabilities)
        (folder / f"seed{seed}").mkdir(parents=True)
        write_predictions(folder / f"seed{seed}/test_predictions.csv", run)
    argv = ["evaluate", "--compare", str(plain), str(other), "--out", str(tmp_path)]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    for part in ("seed0:", "seed1:", "all seeds:", "k/n by seed"):
        assert part in printed
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert list(content) == ["seed0", "seed1", "over_seeds"]
    assert [len(counts) for counts in content["over_seeds"]["right"]] == [2, 2]


def test_a_folder_without_a_run(rcmnet_error, tmp_path):
    assert "holds no trained model" in rcmnet_error("evaluate", "--model", tmp_path)
    assert "holds no trained model" in rcmnet_error("evaluate", "--model", tmp_path / "missing")


def test_a_damaged_checkpoint_is_told_and_left_where_it_is(rcmnet_error, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for step in (run / "checkpoints" / "best").iterdir():
        flip_bit(step)
    before = sorted(run.rglob("*"))
    line = rcmnet_error("evaluate", "--model", run, "--out", tmp_path / "out")
    assert "can be read" in line
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--batch-size", "0"], "--batch-size"),
        (["--data", "x", "--part", "val"], "leave out --source and --part"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--source", "no/such/folder"], "no/such/folder"),
    ],
)
def test_arguments_that_cannot_be(rcmnet_error, trained, argv, told):
    assert told in rcmnet_error("evaluate", "--model", trained, *argv)


def test_images_that_changed_since_training(rcmnet_error, trained, write_cell_folder, tmp_path):
    other = write_cell_folder(tmp_path / "other", per_class=20, seed=9)
    line = rcmnet_error("evaluate", "--model", trained, "--source", other)
    assert "not the images of the run" in line


def test_classes_that_the_network_does_not_know(rcmnet_error, trained, write_cell_folder, tmp_path):
    other = write_cell_folder(tmp_path / "other", per_class=2)
    (other / "pink").rename(other / "green")
    line = rcmnet_error("evaluate", "--model", trained, "--data", other)
    assert "green" in line
    assert "blue, pale, pink" in line


def test_comparing_what_is_not_there_or_not_of_the_same_images(rcmnet_error, trained, tmp_path):
    assert rcmnet_error("evaluate", "--compare", trained, tmp_path)
    csv = (trained / "test_predictions.csv").read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join(csv[:-2]) + "\n")
    assert rcmnet_error("evaluate", "--compare", trained, tmp_path / "fewer.csv")
