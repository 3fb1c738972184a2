"""``rcmnet evaluate --external``: what it writes and refuses, and that labels choose nothing."""

import json
import shutil

import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_run
from rcmnet_jax.cli.main import main
from rcmnet_jax.errors import UserError
from rcmnet_jax.scoring.adaptations import OtherLab, all_options, distort, option_name, parse_option
from rcmnet_jax.scoring.run import HomeImages


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


def test_every_option_is_scored_and_the_report_tells_of_the_chosen(
    trained, other, class_map, tmp_path, capsys
):
    argv = ["evaluate", "--workdir", str(trained), "--external", str(other), "--map"]
    argv += [str(class_map), "--out", str(tmp_path), "--draws", "1", "--report", "--worst", "1"]
    assert main([*argv, "--options", "plain", "scale+colour", "bn", "views"]) == 0
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
        argv = ["evaluate", "--workdir", str(trained), "--external", str(other), "--map"]
        argv += [str(path), "--out", str(tmp_path / str(number)), "--draws", "1"]
        assert main([*argv, "--options", "plain", "colour", "scale"]) == 0
        text = (tmp_path / str(number) / "external_options.json").read_text()
        choices.append(json.loads(text)["choice"])
    assert choices[0] == choices[1]


def test_without_draws_the_first_option_counts(trained, other, class_map, tmp_path):
    argv = ["evaluate", "--workdir", str(trained), "--external", str(other), "--map"]
    argv += [str(class_map), "--out", str(tmp_path), "--draws", "0", "--options", "bn", "plain"]
    assert main(argv) == 0
    found = json.loads((tmp_path / "external_options.json").read_text())
    assert found["choice"] is None
    assert [row["chosen"] for row in found["options"]] == [True, False]


def test_options_undo_what_was_done_to_the_images(trained):
    """Plain images distorted and brought back are nearer to what they were."""
    restored = load_run(trained)
    home = HomeImages(restored)
    images = home.pixels[home.split.indices("train")]
    lab = OtherLab(restored, images)
    strange = distort(images, np.random.default_rng(2))
    aligned, _ = lab.align(strange, ("scale", "colour"))
    before, after = (np.abs(x.astype(int) - images).mean() for x in (strange, aligned))
    assert after < 0.75 * before


def test_averaged_views_do_not_depend_on_the_view(trained):
    restored = load_run(trained)
    home = HomeImages(restored)
    images = np.asarray(home.pixels[:6])
    lab = OtherLab(restored, images)
    (p,) = lab.probabilities(images, [("views",)]).values()
    (turned,) = lab.probabilities(images.swapaxes(1, 2)[:, ::-1], [("views",)]).values()
    # As logarithms, since a network of one epoch is very sure.
    np.testing.assert_allclose(np.log(p), np.log(turned), rtol=1e-3, atol=1e-3)
    both = lab.probabilities(images, [(), ("views",)])
    assert list(both) == [(), ("views",)]
    assert np.abs(np.log(both[()]) - np.log(both["views",])).max() > 0.1


def test_names_of_options():
    assert len(all_options()) == 16
    assert [parse_option(option_name(o)) for o in all_options()] == all_options()
    assert parse_option("views+bn") == ("bn", "views")
    for wrong in ("", "magic", "bn+bn", "plain+bn"):
        with pytest.raises(UserError, match="joined by"):
            parse_option(wrong)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--external", "x"], "--map"),
        (["--map", "x"], "--external"),
        (["--external", "x", "--map", "y", "--part", "val"], "leave out --part"),
        (["--options", "bn"], "belongs to --external"),
        (["--external", "x", "--map", "y", "--draws", "-1"], "negative"),
        (["--data", "x", "--report"], "--external"),
        (["--external", "no/such", "--map", "no.csv"], "no/such"),
    ],
)
def test_arguments_that_cannot_be(rcmnet_error, trained, argv, told):
    assert told in rcmnet_error("evaluate", "--workdir", trained, *argv)


def test_a_class_without_a_line_in_the_map(rcmnet_error, trained, other, tmp_path):
    (tmp_path / "map.csv").write_text("label,class\nBlau,blue\n")
    argv = ["--external", other, "--map", tmp_path / "map.csv", "--out", tmp_path]
    assert "does not map Blass, artefact" in rcmnet_error("evaluate", "--workdir", trained, *argv)


def test_images_of_one_class_only_are_scored(trained, other, class_map, tmp_path):
    one = shutil.copytree(other, tmp_path / "lab")
    shutil.rmtree(one / "Blass")
    argv = ["evaluate", "--workdir", str(trained), "--external", str(one), "--map"]
    argv += [str(class_map), "--out", str(tmp_path / "out"), "--draws", "0", "--options", "plain"]
    assert main(argv) == 0
    scores = json.loads((tmp_path / "out" / "external_metrics.json").read_text())
    assert scores["accuracy"]["n"] == 8
