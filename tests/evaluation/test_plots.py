"""The figures exist, have their size, show what they were given and leave nothing behind."""

import sys

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation import (
    plot_confusion,
    plot_curves,
    plot_per_class,
    plot_reliability,
    plot_style,
)

HISTORY = [
    {
        "epoch": float(epoch),
        "step": 10 * epoch,
        "train_loss": 2.0**-epoch,
        "train_accuracy": 1 - 2.0**-epoch,
        "val_loss": 1.2 * 2.0**-epoch,
        "val_accuracy": 0.95 - 2.0**-epoch,
        "val_balanced_accuracy": 0.94 - 2.0**-epoch,
        "learning_rate": 0.05 / epoch,
    }
    for epoch in range(1, 9)
]
CONFUSION = np.array([[48, 2, 0], [1, 49, 0], [0, 5, 45]])
CLASSES = ["basophil", "ig", "platelet"]


def picture(path):
    """(H, W, 3) pixels; the figure is 1000 px wide and not blank."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1000
        assert "Software" not in image.info
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels != 255).any(axis=2).mean() > 0.005
    return pixels


def predictions(count=200, classes=3):
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=count)
    weight = rng.dirichlet(np.ones(classes), size=count)
    weight[np.arange(count), labels] += 1
    return labels, weight / weight.sum(axis=1, keepdims=True)


DRAW = {
    "curves": lambda path, **options: plot_curves(HISTORY, path, **options),
    "confusion": lambda path, **options: plot_confusion(CONFUSION, CLASSES, path, **options),
    "per_class": lambda path, **options: plot_per_class(CONFUSION, CLASSES, path, **options),
    "reliability": lambda path, **options: plot_reliability(*predictions(), path, **options),
}


@pytest.mark.parametrize("name", DRAW)
def test_draws_the_same_bytes_and_says_synthetic(name, tmp_path, monkeypatch):
    DRAW[name](tmp_path / "real.png")
    DRAW[name](tmp_path / "again.png")
    assert (tmp_path / "real.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    titles = []
    original = plot_style.Figure.suptitle
    monkeypatch.setattr(
        plot_style.Figure, "suptitle", lambda f, t, **o: titles.append(t) or original(f, t, **o)
    )
    DRAW[name](tmp_path / "drawn.png", synthetic=True)
    assert "synthetic" in titles[0]
    assert picture(tmp_path / "real.png").shape == picture(tmp_path / "drawn.png").shape
    assert {p.name for p in tmp_path.iterdir()} == {"real.png", "again.png", "drawn.png"}
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


@pytest.mark.parametrize(
    "history",
    [
        HISTORY[:1],
        [{"epoch": 1.0, "train_loss": 1.0}],
        [{"epoch": 1.0, "val_accuracy": 1.0}, {"epoch": 2.0}],
        [{"epoch": e, "train_loss": float("nan"), "learning_rate": 0.1} for e in (1.0, 2.0)],
        [{"epoch": i / 500, "train_loss": 1.0, "train_accuracy": None} for i in range(1000)],
        [{"epoch": 1.0, "train_loss": 0.0}, {"epoch": 2.0, "train_loss": 5.0}],
        [*HISTORY, {"epoch": 9.0, "step": 90, "seconds": 3.0}],
    ],
)
def test_curves_of_odd_runs(history, tmp_path):
    plot_curves(history, tmp_path / "curves.png")
    picture(tmp_path / "curves.png")


@pytest.mark.parametrize("history", [[], [{"epoch": 1.0}], [{"train_loss": 1.0}]])
def test_curves_of_nothing_are_refused(history, tmp_path):
    with pytest.raises(DataError, match="no epoch with a value"):
        plot_curves(history, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("classes", "normalise"), [(2, True), (2, False), (8, True), (20, False), (30, True)]
)
def test_confusion_of_any_size(classes, normalise, tmp_path):
    confusion = np.diag(np.full(classes, 240))
    confusion[0, 1], confusion[1] = 3, 0  # an error, and a class without images
    names = [f"$weird_{{name}} {k} and then much more of it$" for k in range(classes)]
    plot_confusion(confusion, names, tmp_path / "c.png", normalise=normalise)
    picture(tmp_path / "c.png")
    plot_per_class(confusion, names, tmp_path / "p.png")
    picture(tmp_path / "p.png")


def test_a_single_error_is_visible(tmp_path):
    clean = np.diag([1000] * 4)
    dirty = clean.copy()
    dirty[0, 3] = 1
    plot_confusion(clean, list("abcd"), tmp_path / "clean.png")
    plot_confusion(dirty, list("abcd"), tmp_path / "dirty.png")
    differ = (picture(tmp_path / "clean.png") != picture(tmp_path / "dirty.png")).any(axis=2)
    assert differ.sum() > 5000  # a whole cell, not only the digit


def test_perfect_and_single_images(tmp_path):
    plot_per_class(np.diag([5, 5]), ["a", "b"], tmp_path / "p.png")
    plot_reliability(np.array([0]), np.array([[1.0, 0.0]]), tmp_path / "r.png")
    plot_reliability(np.array([1]), np.array([[1.0, 0.0]]), tmp_path / "w.png")
    for name in ("p", "r", "w"):
        picture(tmp_path / f"{name}.png")


@pytest.mark.parametrize("draw", [plot_confusion, plot_per_class])
def test_matrices_that_do_not_fit_are_refused(draw, tmp_path):
    for confusion, names in [
        (CONFUSION, ["a", "b"]),
        (CONFUSION[:2], CLASSES),
        (np.zeros((3, 3), int), CLASSES),
    ]:
        with pytest.raises(DataError, match="images in a confusion matrix"):
            draw(confusion, names, tmp_path / "c.png")
