"""Synthetic cells: deterministic, well-formed, without a shortcut that is not morphology."""

import json

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.errors import DataError
from rcmnet_jax.synthetic import (
    SYNTHETIC_CART_CLASSES,
    SYNTHETIC_CLASSES,
    contact_sheet,
    draw_cart_cell,
    draw_cell,
    draw_folder,
    palette,
    shapes,
    smear,
    write_synthetic_folder,
)

CENTRE = slice(150, 210)


def _border(pixels):
    """The outer ring of 24 pixels, (N, 3)."""
    ring = np.ones(pixels.shape[:2], bool)
    ring[24:-24, 24:-24] = False
    return pixels[ring]


def test_class_names_are_the_plain_pbc_names():
    assert SYNTHETIC_CLASSES == (
        "basophil",
        "eosinophil",
        "erythroblast",
        "ig",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    )
    assert SYNTHETIC_CART_CLASSES == ("cart", "other")


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
def test_every_class_is_deterministic_and_in_range(name):
    first, again, other = draw_cell(name, 3), draw_cell(name, 3), draw_cell(name, 4)
    assert first.shape == (363, 360, 3)
    assert first.dtype == np.uint8
    assert first.flags.writeable
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other.astype(int)).mean() > 3.0
    # A light slide with something dark near the middle.
    assert 150 < first.mean() < 245
    assert np.median(first.max(axis=-1)) > 180
    assert first[CENTRE, CENTRE].mean() < np.percentile(first.mean(axis=-1), 90) - 10


@pytest.mark.parametrize("name", SYNTHETIC_CART_CLASSES)
def test_cart_pair_is_deterministic(name):
    pixels = draw_cart_cell(name, 0)
    assert pixels.shape == (384, 384, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, draw_cart_cell(name, 0))
    assert np.any(pixels != draw_cart_cell(name, 1))


def test_classes_of_one_seed_do_not_share_their_slide():
    borders = [_border(draw_cell(name, 0)) for name in SYNTHETIC_CLASSES]
    assert len({border.tobytes() for border in borders}) == len(borders)


def test_drawing_does_not_touch_the_global_generator():
    np.random.seed(0)  # noqa: NPY002  the legacy state is what must stay as it was
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_cell("ig", 0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(("height", "width"), [(28, 28), (64, 96), (363, 361), (384, 384)])
def test_other_sizes(height, width):
    assert draw_cell("monocyte", 1, height=height, width=width).shape == (height, width, 3)


def test_a_small_drawing_shows_the_native_one():
    native = Image.fromarray(draw_cell("eosinophil", 5)).resize((60, 60), Image.Resampling.BOX)
    small = draw_cell("eosinophil", 5, height=60, width=60)
    assert np.abs(small.astype(int) - np.asarray(native, int)).mean() < 4.0


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"'blast'.*basophil, eosinophil.*platelet"):
        draw_cell("blast", 0)
    with pytest.raises(ValueError, match="cart, other"):
        draw_cart_cell("lymphocyte", 0)
    with pytest.raises(ValueError, match="seed is -1"):
        draw_cell("ig", -1)
    with pytest.raises(ValueError, match="0 x 10"):
        draw_cell("ig", 0, height=0, width=10)
    with pytest.raises(ValueError, match="pbc, cart"):
        contact_sheet("pcb")


def test_border_colour_does_not_tell_the_class():
    """Nearest class mean on the border's mean colour, on seeds it has not seen: near chance."""
    seeds = 8
    colour = np.array(
        [
            [_border(draw_cell(name, 500 + seed)).mean(axis=0) for seed in range(2 * seeds)]
            for name in SYNTHETIC_CLASSES
        ]
    )
    means = colour[:, :seeds].mean(axis=1)
    distance = np.linalg.norm(colour[:, seeds:, None] - means, axis=-1)
    right = distance.argmin(axis=-1) == np.arange(len(SYNTHETIC_CLASSES))[:, None]
    # Chance is 1/8; 64 drawings have a standard error of 0.04.
    assert right.mean() < 0.25


def test_morphology_tells_easy_classes_apart():
    """Dark matter in the middle: platelet < erythroblast < monocyte, as in blood."""

    def dark(name):
        drawings = [draw_cell(name, seed)[80:280, 80:280] for seed in range(6)]
        return np.median([(pixels[..., 1] < 110).mean() for pixels in drawings])

    assert dark("platelet") < dark("erythroblast") < dark("monocyte")


def test_eosinophil_is_redder_than_neutrophil():
    def redness(name):
        drawings = [draw_cell(name, seed)[130:230, 130:230].astype(float) for seed in range(6)]
        return np.mean([np.median(pixels[..., 0] - pixels[..., 1]) for pixels in drawings])

    assert redness("eosinophil") > redness("neutrophil") + 10


def test_stain_is_drawn_without_the_class():
    first = palette.draw_stain(np.random.default_rng(0))
    again = palette.draw_stain(np.random.default_rng(0))
    np.testing.assert_array_equal(first.density("nucleus"), again.density("nucleus"))
    for name in palette._SEEN_RGB:
        assert np.all(first.density(name) > -0.05), name


def test_shapes():
    disc = shapes.outline(20, 10.0)
    assert disc[20, 20] == pytest.approx(10.0)
    assert shapes.coverage(disc).sum() == pytest.approx(np.pi * 100, rel=0.02)
    moved = shapes.outline(20, 10.0, centre=(5, -3))
    assert moved[17, 25] == pytest.approx(10.0)
    bar = shapes.strand(20, (-8, 0), (8, 0), 3.0)
    assert bar[20, 12] == pytest.approx(3.0)
    union = shapes.smooth_union(disc, moved, 4.0)
    assert np.all(union >= np.maximum(disc, moved))
    noise = shapes.value_noise(np.random.default_rng(0), 200, 5.0)
    assert abs(noise.mean()) < 0.2
    assert 0.6 < noise.std() < 1.4


@pytest.mark.parametrize("centre", [(0, 0), (49, 59), (-30, 10), (200, 200)])
def test_patches_are_cut_at_the_border(centre):
    canvas = np.zeros((3, 60, 50), np.float32)
    smear.cover_patch(canvas, np.ones((3, 21, 21)), np.ones((21, 21)), centre)
    y, x = np.mgrid[:60, :50]
    inside = (abs(x - centre[0]) <= 10) & (abs(y - centre[1]) <= 10)
    np.testing.assert_array_equal(canvas, np.broadcast_to(inside, canvas.shape))


def test_folder_is_written_and_reused(tmp_path):
    request = {"per_class": 2, "seed": 1, "height": 40, "width": 44}
    root = write_synthetic_folder(tmp_path / "cells", **request)
    assert root == tmp_path / "cells"
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [*SYNTHETIC_CLASSES, "README.txt", "synthetic.json"]
    )
    files = sorted(root.rglob("*.jpg"))
    assert len(files) == 16
    assert (root / "ig" / "synthetic_IG_000001.jpg") in files
    with Image.open(files[0]) as picture:
        assert picture.size == (44, 40)
    assert "SYNTHETIC" in (root / "README.txt").read_text()
    assert json.loads((root / "synthetic.json").read_text())["synthetic"] is True
    assert (root.stat().st_mode & 0o777) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["cells"]

    stamps = {path: path.stat().st_mtime_ns for path in files}
    write_synthetic_folder(root, **request)
    assert stamps == {path: path.stat().st_mtime_ns for path in files}
    again = write_synthetic_folder(tmp_path / "again", **request, workers=1)
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(root)).read_bytes()


def test_folder_never_overwrites(tmp_path):
    small = {"kind": "cart", "height": 24, "width": 24}
    root = write_synthetic_folder(tmp_path / "cart", per_class=1, **small)
    with pytest.raises(DataError, match="already holds other synthetic images"):
        write_synthetic_folder(root, per_class=2, **small)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep me")
    with pytest.raises(DataError, match="already holds other files"):
        write_synthetic_folder(mine, per_class=1, **small)
    assert (mine / "notes.txt").read_text() == "keep me"
    with pytest.raises(ValueError, match="per_class is 0"):
        write_synthetic_folder(tmp_path / "none", per_class=0)
    assert not (tmp_path / "none").exists()


def test_folder_fills_an_empty_directory(tmp_path):
    (tmp_path / "empty").mkdir()
    root = write_synthetic_folder(tmp_path / "empty", kind="cart", per_class=1)
    with Image.open(root / "cart" / "synthetic_CART_000000.jpg") as picture:
        assert picture.size == (384, 384)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("disk on fire")

    monkeypatch.setattr(draw_folder.scenes, "draw_cell", broken)
    with pytest.raises(OSError, match="on fire"):
        write_synthetic_folder(tmp_path / "cells", per_class=1)
    assert list(tmp_path.iterdir()) == []


def test_contact_sheet():
    sheet = contact_sheet("cart", columns=3, cell=50)
    assert sheet.mode == "RGB"
    assert sheet.size == (96 + 3 * 54 + 4, 28 + 2 * 54 + 4)
    assert np.asarray(sheet).std() > 10
