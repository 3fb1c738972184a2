"""``rcmnet explain``: what it leaves, and what it refuses."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.checkpoints.bundle import write_bundle
from rcmnet_jax.checkpoints.open_model import load_model
from rcmnet_jax.cli.main import main
from rcmnet_jax.prediction import open_classifier


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


def boxes_of(images, folder):
    """A table with a box in the middle of every image."""
    path = folder / "boxes.csv"
    files = sorted(p.relative_to(images) for p in images.rglob("*.png"))
    rows = "".join(f"{file},0.5,0.5,0.5,0.5\n" for file in files)
    path.write_text("file,x_center,y_center,width,height\n" + rows)
    return path


@pytest.fixture(scope="module")
def boxes(images, tmp_path_factory):
    return boxes_of(images, tmp_path_factory.mktemp("boxes"))


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
    assert page.count(": scores of the maps</h2>") == 2
    # Localisation, randomisation and faithfulness of each; the second is compared with the first.
    assert page.count("<table>") == 7
    assert page.count("minus trained") == 1


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


def test_the_default_layer_has_six_cells_a_side_and_is_named(trained, images, tmp_path, capsys):
    argv = ("--model", trained, "--images", images / "blue", "--out", tmp_path)
    assert run(*argv) == 0
    assert "layer stage1, 8x8 maps; probabilities not calibrated" in capsys.readouterr().out
    assert "layer stage1, 8x8 maps" in (tmp_path / "index.html").read_text()
    document = json.loads((tmp_path / "maps.json").read_text())
    assert document["settings"]["layer"] == document["runs"]["trained"]["layer"] == "stage1"
    assert run(*argv, "--layer", "last") == 0
    assert "layer last, 1x1 maps" in capsys.readouterr().out


def test_explaining_and_predicting_a_bundle_give_the_same_probabilities(
    trained, images, tmp_path, capsys
):
    bundle = tmp_path / "model.rcmnet"
    network = dataclasses.replace(load_model(trained), temperature=2.5)
    write_bundle(bundle, network, card="")
    assert run("--model", bundle, "--images", images, "--out", tmp_path / "maps") == 0
    assert "probabilities calibrated (temperature 2.5)" in capsys.readouterr().out
    document = json.loads((tmp_path / "maps" / "maps.json").read_text())
    files = [entry["file"] for entry in document["images"]]
    expected = open_classifier(bundle).predict_files(files).probabilities.max(axis=1)
    shown = [entry["runs"]["model.rcmnet"]["probability"] for entry in document["images"]]
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    uncalibrated = open_classifier(trained).predict_files(files).probabilities.max(axis=1)
    assert np.abs(uncalibrated - expected).max() > 0.01


def test_files_of_an_earlier_call_go_and_those_of_the_user_stay(trained, images, tmp_path):
    again = shutil.copytree(trained, tmp_path / "again")
    out = tmp_path / "out"
    argv = ("--images", images / "blue", "--out", out)
    assert run("--model", trained, *argv, "--boxes", boxes_of(images, tmp_path)) == 0
    mine = [out / "notes.txt", out / "overlays/again/mine.png", out / "overlays/trained2/x.png"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert (out / "scores.json").exists()
    assert run("--model", again, *argv, "--limit", "1") == 0
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    document = json.loads((out / "maps.json").read_text())
    assert left == {*document["files"], *(str(path.relative_to(out)) for path in mine)}
    assert not (out / "overlays/trained").exists()
    assert not any("trained/" in name or name == "scores.json" for name in left)


def test_a_list_of_files_elsewhere_is_not_followed(trained, images, tmp_path):
    precious, out = tmp_path / "precious.txt", tmp_path / "out"
    precious.write_text("mine")
    out.mkdir()
    listed = {"images": [], "files": ["../precious.txt", str(precious)]}
    (out / "maps.json").write_text(json.dumps(listed))
    assert run("--model", trained, "--images", images / "blue", "--out", out) == 0
    assert precious.read_text() == "mine"


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
        (["--boxes", "nowhere.csv"], "the table of boxes nowhere.csv cannot be read"),
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
