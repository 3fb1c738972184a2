"""Figure of a run's training: loss, accuracy and learning rate by epoch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.plot_style import (
    BLUE,
    GREEN,
    GREY,
    RED,
    clean,
    new_figure,
    plain_number,
    save,
)

_LOSSES = (
    ("train_loss", "training", BLUE, "-"),
    ("val_loss", "validation", RED, "--"),
    ("test_loss", "test, watched", RED, "--"),
)
_ACCURACIES = (
    ("train_accuracy", "training", BLUE, "-"),
    ("val_accuracy", "validation", RED, "--"),
    ("val_balanced_accuracy", "validation, balanced", GREEN, ":"),
    ("test_accuracy", "test, watched", RED, "--"),
)
_RATE = (("learning_rate", "learning rate", GREY, "-"),)


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and finite values of one column; rows without it are left out."""
    pairs = [
        (float(row["epoch"]), float(row[key]))
        for row in rows
        if row.get("epoch") is not None and row.get(key) is not None
    ]
    table = np.array([pair for pair in pairs if math.isfinite(pair[1])]).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _lines(
    axes: Axes, rows: Sequence[Mapping[str, Any]], series: Sequence[tuple[str, str, str, str]]
) -> np.ndarray:
    """Draw the columns that have values, and return all values drawn."""
    drawn = [np.empty(0)]
    for key, label, colour, style in series:
        epochs, values = _series(rows, key)
        if not len(values):
            continue
        # Few points are epochs and get a marker; many are steps, where markers would merge.
        marker = "o" if len(values) <= 60 else ""
        axes.plot(
            epochs, values, style, color=colour, label=label, marker=marker, markersize=4, lw=1.8
        )
        drawn.append(values)
    if len(drawn) > 1:
        axes.legend(frameon=False, fontsize=11)
    else:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY)
    return np.concatenate(drawn)


def _loss_axis(axes: Axes, losses: np.ndarray) -> None:
    """Logarithmic where it helps: from 2 to 0.01 a linear axis shows a flat line after epoch 3."""
    logarithmic = losses.size > 0 and losses.min() > 0 and losses.max() > 20 * losses.min()
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(plain_number))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("loss, log scale" if logarithmic else "loss", fontsize=12)


def plot_curves(
    history: Sequence[Mapping[str, Any]], path: Path | str, *, synthetic: bool = False
) -> None:
    """Loss, accuracy and learning rate over the epochs of a run.

    Args:
        history: rows with ``epoch`` (float) and any of ``train_loss, train_accuracy, val_loss,
            val_accuracy, val_balanced_accuracy, test_loss, test_accuracy, learning_rate``; others
            are ignored, and so are values that are missing or not finite.
        path: the PNG, 1000 px wide.
        synthetic: say in the title that the images are synthetic.

    Raises:
        DataError: no row has an epoch and a value.
        UserError: the file cannot be written.
    """
    figure = new_figure(5.2, "Training curves", synthetic)
    grid = figure.add_gridspec(2, 2, height_ratios=[4, 1])
    loss, accuracy = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    rate = figure.add_subplot(grid[1, :])
    losses = _lines(loss, history, _LOSSES)
    accuracies = _lines(accuracy, history, _ACCURACIES)
    rates = _lines(rate, history, _RATE)
    if not losses.size + accuracies.size + rates.size:
        raise DataError("the history has no epoch with a value to draw; train for at least 1 epoch")
    _loss_axis(loss, losses)
    accuracy.set_ylabel("accuracy", fontsize=12)
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    if accuracies.size:
        accuracy.set_ylim(max(0.0, accuracies.min() - 0.03), min(1.005, accuracies.max() + 0.03))
        accuracy.legend(frameon=False, fontsize=11, loc="lower right")
    rate.set_ylabel("learning rate", fontsize=10)
    if rates.size:
        rate.legend().remove()
        rate.set_ylim(0, 1.1 * rates.max() if rates.max() > 0 else 1)
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch", fontsize=12)
        low, high = axes.get_xlim()
        if high - low < 1:  # a single epoch
            axes.set_xlim(math.floor(low), math.ceil(high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        clean(axes)
    rate.tick_params(labelsize=9)
    save(figure, path)
