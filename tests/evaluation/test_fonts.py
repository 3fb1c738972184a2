"""Class names in scripts that Matplotlib's own font lacks."""

import warnings

import numpy as np
import pytest
from matplotlib.image import imread

from rcmnet_jax.evaluation import fonts
from rcmnet_jax.evaluation.plots import plot_confusion, plot_per_class

CONFUSION = np.array([[3, 1], [0, 4]])
CHINESE = ("中性粒细胞", "单核细胞")


@pytest.fixture(autouse=True)
def fresh_warnings():
    fonts._warn_once.cache_clear()


@pytest.fixture
def no_other_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "_installed", lambda: ())


@pytest.fixture
def cjk():
    """Skips where no Chinese font is installed."""
    if fonts.font_files(CHINESE)[1]:
        pytest.skip("no installed font has Chinese letters")


def drawn(path, names, plot=plot_confusion):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns of a missing glyph.
        plot(CONFUSION, names, path)
    return imread(path)


@pytest.mark.parametrize("plot", [plot_confusion, plot_per_class])
def test_without_a_font_classes_are_numbered_and_one_line_names_them(
    no_other_fonts, tmp_path, caplog, plot
):
    numbered = drawn(tmp_path / "numbers.png", ("class 0", "monocyte"), plot)
    assert not caplog.records
    picture = drawn(tmp_path / "chinese.png", (CHINESE[0], "monocyte"), plot)
    np.testing.assert_array_equal(picture, numbered)
    (record,) = caplog.records
    assert f"class names: 0 {CHINESE[0]}; figures show their numbers" in record.getMessage()
    # Once, however many figures there are.
    drawn(tmp_path / "chinese.png", (CHINESE[0], "monocyte"), plot)
    assert len(caplog.records) == 1


def test_latin_greek_and_cyrillic_names_need_no_other_font(no_other_fonts):
    names = ["Zelle größer", "λ-cell", "лимфоцит"]
    assert fonts.drawable_names(names) == names
    assert fonts.font_files(names) == ([fonts.DEFAULT], set())


def test_chinese_names_are_drawn_where_a_font_has_them(cjk, tmp_path, caplog):
    assert fonts.drawable_names(CHINESE) == list(CHINESE)
    first = drawn(tmp_path / "a.png", CHINESE)
    other = drawn(tmp_path / "b.png", (CHINESE[1], CHINESE[0]))
    # Boxes would look alike.
    assert (first != other).any()
    assert not caplog.records
    assert fonts.font_of("中性 12 %") != fonts.DEFAULT
    assert fonts.font_of("neutrophil 12 %") == fonts.DEFAULT


def test_a_font_file_that_cannot_be_read_is_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_installed", lambda: (broken,))
    assert fonts.drawable_names(CHINESE) == ["class 0", "class 1"]
