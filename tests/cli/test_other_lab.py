"""``rcmnet evaluate --other-lab``: what it writes and refuses; the choice sees no label."""

import json
import shutil

import pytest

from rcmnet_jax.cli.main import main


@pytest.fixture(scope="module")
def other(write_cell_folder, tmp_path_factory):
    """Two of the classes under other names, and one that has no counterpart."""
    root = write_cell_folder(tmp_path_factory.mktemp("lab") / "cells", per_class=8, size=40, seed=3)
    (root / "blue").rename(root / "Blau")
    (root / "pale").rename(root / "Blass")
    (root / "pink").rename(root / "artefact")
    return root


@pytest.fixture(scope="module")
def class_map(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "classes.csv"
    path.write_text("label,class\nBlau,blue\nBlass,pale\nartefact,\n")
    return path


def test_every_adaptation_is_scored_and_the_report_is_about_the_chosen_one(
    trained, other, class_map, tmp_path, capsys
):
    argv = ["evaluate", "--model", str(trained), "--other-lab", str(other), "--map"]
    argv += [str(class_map), "--out", str(tmp_path), "--draws", "1", "--report", "--worst", "1"]
    assert main([*argv, "--adaptations", "plain", "scale+colour", "bn", "views"]) == 0
    found = json.loads((tmp_path / "external_options.json").read_text())
    assert [row["option"] for row in found["options"]] == ["plain", "scale+colour", "bn", "views"]
    assert found["classes"] == ["blue", "pale"]
    (chosen,) = [row for row in found["options"] if row["chosen"]]
    assert found["choice"]["chosen"] == chosen["option"]
    assert set(found["choice"]["balanced_accuracy"]) == {"plain", "scale+colour", "bn", "views"}
    # The scores written are those of the chosen option, of the images that have a class.
    scores = json.loads((tmp_path / "external_metrics.json").read_text())
    assert scores["accuracy"]["n"] == 16
    assert scores["accuracy"]["k"] == chosen["accuracy"]["k"]
    assert scores["split_note"].startswith("external")
    for row in found["options"]:
        assert row["forced_accuracy"]["k"] >= row["accuracy"]["k"]
    report = json.loads((tmp_path / "external_report.json").read_text())
    assert report["external"] == found
    assert {item["item"]: item["status"] for item in report["claim"]}[32] == "yes"
    page = (tmp_path / "external_report.html").read_text()
    assert "Another lab" in page
    assert "chosen" in capsys.readouterr().out


def test_the_choice_does_not_look_at_the_other_labels(trained, other, tmp_path):
    swapped = tmp_path / "swapped.csv"
    swapped.write_text("label,class\nBlau,pale\nBlass,blue\nartefact,\n")
    straight = tmp_path / "straight.csv"
    straight.write_text("label,class\nBlau,blue\nBlass,pale\nartefact,\n")
    choices = []
    for number, path in enumerate((straight, swapped)):
        argv = ["evaluate", "--model", str(trained), "--other-lab", str(other), "--map"]
        argv += [str(path), "--out", str(tmp_path / str(number)), "--draws", "1"]
        assert main([*argv, "--adaptations", "plain", "colour", "scale"]) == 0
        text = (tmp_path / str(number) / "external_options.json").read_text()
        choices.append(json.loads(text)["choice"])
    assert choices[0] == choices[1]


def test_without_draws_the_first_adaptation_counts(trained, other, class_map, tmp_path):
    argv = ["evaluate", "--model", str(trained), "--other-lab", str(other), "--map"]
    argv += [str(class_map), "--out", str(tmp_path), "--draws", "0", "--adaptations", "bn", "plain"]
    assert main(argv) == 0
    found = json.loads((tmp_path / "external_options.json").read_text())
    assert found["choice"] is None
    assert [row["chosen"] for row in found["options"]] == [True, False]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--other-lab", "x"], "--map"),
        (["--map", "x"], "--other-lab"),
        (["--other-lab", "x", "--map", "y", "--adaptations", "magic"], "adaptation 'magic'"),
        (["--other-lab", "x", "--map", "y", "--part", "val"], "leave out --part"),
        (["--adaptations", "bn"], "belongs to --other-lab"),
        (["--other-lab", "x", "--map", "y", "--draws", "-1"], "negative"),
        (["--data", "x", "--report"], "--other-lab"),
        (["--other-lab", "no/such", "--map", "no.csv"], "no/such"),
    ],
)
def test_arguments_that_cannot_be(rcmnet_error, trained, argv, told):
    assert told in rcmnet_error("evaluate", "--model", trained, *argv)


def test_a_class_without_a_line_in_the_map(rcmnet_error, trained, other, tmp_path):
    (tmp_path / "map.csv").write_text("label,class\nBlau,blue\n")
    argv = ["--other-lab", other, "--map", tmp_path / "map.csv", "--out", tmp_path]
    assert "does not map Blass, artefact" in rcmnet_error("evaluate", "--model", trained, *argv)


def test_a_folder_of_one_class_is_scored(trained, other, class_map, tmp_path, capsys):
    one = shutil.copytree(other, tmp_path / "lab")
    shutil.rmtree(one / "Blass")
    shutil.rmtree(one / "artefact")
    (tmp_path / "map.csv").write_text("label,class\nBlau,blue\n")
    argv = ["evaluate", "--model", str(trained), "--other-lab", str(one), "--map"]
    argv += [str(tmp_path / "map.csv"), "--out", str(tmp_path / "out"), "--draws", "0"]
    assert main([*argv, "--adaptations", "plain"]) == 0
    scores = json.loads((tmp_path / "out" / "external_metrics.json").read_text())
    assert scores["accuracy"]["n"] == 8
    assert scores["note"].startswith("All images are blue")
    (row,) = json.loads((tmp_path / "out" / "external_options.json").read_text())["options"]
    assert row["forced_accuracy"]["k"] == 8
    assert "one class only" in capsys.readouterr().out


def test_the_names_of_before_still_work(trained, other, class_map, tmp_path):
    argv = ["evaluate", "--workdir", str(trained), "--external", str(other), "--map"]
    argv += [str(class_map), "--out", str(tmp_path), "--draws", "0", "--options", "plain"]
    assert main(argv) == 0
    found = json.loads((tmp_path / "external_options.json").read_text())
    # Three validation images at home are too few for a temperature, and that is said.
    assert found["options"][0]["ece_with_home_temperature"] is None
    assert found["home_temperature_note"] == (
        "a temperature needs at least 50 validation images, and there are 3"
    )
