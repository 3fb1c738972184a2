"""``rcmnet explain``: what it leaves, and what it refuses."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.cli.main import main


def run(*argv):
    return main(["explain", *map(str, argv)])


@pytest.fixture(scope="module")
def images(cells, tmp_path_factory):
    """Two images of each class."""
    root = tmp_path_factory.mktemp("images") / "cells"
    for folder in sorted(cells.iterdir()):
        (root / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:2]:
            shutil.copy(file, root / folder.name)
    return root


@pytest.fixture(scope="module")
def boxes(images, tmp_path_factory):
    """A table with a box in the middle of every image."""
    path = tmp_path_factory.mktemp("boxes") / "boxes.csv"
    files = sorted(p.relative_to(images) for p in images.rglob("*.png"))
    rows = "".join(f"{file},0.5,0.5,0.5,0.5\n" for file in files)
    path.write_text("file,x_center,y_center,width,height\n" + rows)
    return path


@pytest.fixture(scope="module")
def explained(trained, images, boxes, tmp_path_factory):
    """Everything at once, two networks: the run, and the run again under another name."""
    again = shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "again")
    out = tmp_path_factory.mktemp("out") / "maps"
    status = run(
        *("--workdir", trained, again, "--images", images, "--out", out),
        *("--layer", "stage3", "--untrained", "--boxes", boxes, "--checks"),
    )
    return status, out


def test_every_image_has_its_overlay_and_its_raw_map(explained):
    status, out = explained
    assert status == 0
    document = json.loads((out / "maps.json").read_text())
    assert list(document["runs"]) == ["trained", "again", "trained, untrained"]
    assert len(document["images"]) == 6
    with np.load(out / "maps.npz") as arrays:
        maps = {name: arrays[name] for name in arrays.files}
    assert maps["trained/signed_maps"].shape == (6, 2, 2)
    np.testing.assert_array_equal(maps["trained/signed_maps"], maps["again/signed_maps"])
    for row, entry in enumerate(document["images"]):
        assert entry["true_class"] in entry["file"]
        told = entry["runs"]["trained"]
        assert np.isclose(told["maximum"], maps["trained/signed_maps"][row].max())
        assert told["correct"] == (told["predicted"] == entry["true_class"])
        with Image.open(out / told["overlay"]) as picture:
            assert picture.size[0] > 2 * 192
    assert not (out / "overlays" / "trained" / "7.png").exists()


def test_the_page_is_one_file_with_every_image(explained):
    page = (explained[1] / "index.html").read_text()
    assert len(re.findall('<li class="card', page)) == 6
    assert page.count("data:image/jpeg") == 6 * 4
    # Nothing is fetched.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "what the maps are worth" in page


def test_scores_of_trained_networks_with_their_controls(explained):
    scores = json.loads((explained[1] / "scores.json").read_text())
    assert list(scores) == ["trained", "again"]
    found = scores["trained"]["localisation"]
    assert found["images"] == found["trained"]["pointing"]["n"] == 6
    assert found["trained"]["area"] == 0.25
    assert set(found["per_class"]) == {"blue", "pale", "pink"}
    # The boxes are in the middle, and so is the spot.
    assert found["controls"]["spot_in_the_middle"]["pointing"]["k"] == 6
    assert list(found["untrained"]) == ["0", "1", "2"]
    assert "trained_minus_untrained" in found["untrained"]["0"]
    # The same weights, image by image.
    pair = scores["again"]["localisation"]["minus trained"]
    assert pair["energy_difference"]["value"] == 0
    assert (pair["hits_only_first"], pair["hits_only_second"]) == (0, 0)
    assert next(iter(scores["trained"]["randomisation"])) == "head"
    assert set(scores["trained"]["faithfulness"]) == {"maps", "random", "spot_in_the_middle"}


def test_grids(explained):
    with Image.open(explained[1] / "grid.png") as grid:
        assert grid.size[0] > 6 * 128


def test_an_image_that_cannot_be_read_is_named_and_the_rest_goes_on(
    trained, images, tmp_path, capsys
):
    folder = shutil.copytree(images / "blue", tmp_path / "blue")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    assert run("--workdir", trained, "--images", folder, "--out", tmp_path / "out") == 1
    assert f"not read: {folder}/broken.png: " in capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "maps.json").read_text())
    assert len(document["images"]) == 2
    assert [entry["file"] for entry in document["unreadable"]] == [f"{folder}/broken.png"]
    assert "broken.png" in (tmp_path / "out" / "index.html").read_text()


def test_the_runs_own_test_part_and_scores_only(trained, tmp_path, capsys):
    argv = ("--workdir", trained, "--part", "test", "--limit", 6, "--checks", "--scores-only")
    assert run(*argv, "--layer", "stage3", "--out", tmp_path) == 0
    assert "trained: 6 maps" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_a_class_by_name(trained, images, tmp_path):
    argv = ("--workdir", trained, "--images", images / "blue", "--class", "pink")
    assert run(*argv, "--out", tmp_path) == 0
    document = json.loads((tmp_path / "maps.json").read_text())
    assert {entry["runs"]["trained"]["explained_class"] for entry in document["images"]} == {"pink"}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--layer", "layer4"], "no layer 'layer4': it has stem, stage1/block1, "),
        (["--class", "9"], "class '9' does not exist: the network has 0 blue, 1 pale, 2 pink"),
        (["--class", "-1"], "class '-1' does not exist"),
        (["--method", "x"], "the method 'x' is not one of grad_cam, "),
        (["--target", "x"], "the target 'x' is not one of logit, probability"),
        (["--images", "nowhere"], "nowhere does not exist"),
        (["--boxes", "nowhere.csv"], "cannot read boxes from nowhere.csv"),
        (["--limit", "-1"], "--limit must be 0"),
        (["--scores-only"], "needs something to score"),
        (["--source", "x"], "--source is for --part"),
    ],
)
def test_bad_input_is_one_line(rcmnet_error, trained, images, tmp_path, argv, told):
    given = ["--workdir", trained, "--out", tmp_path / "out"]
    given += [] if "--images" in argv else ["--images", images]
    assert told in rcmnet_error("explain", *given, *argv)
    assert not (tmp_path / "out").exists()


def test_boxes_of_other_images(rcmnet_error, trained, images, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("file,x_center,y_center,width,height\na/b.png,0.5,0.5,0.1,0.1\n")
    argv = ["--workdir", trained, "--images", images, "--boxes", table, "--out", tmp_path / "out"]
    assert "none of the images has a box" in rcmnet_error("explain", *argv)
