"""Figures of scores: confusion matrix (as the paper's Figure 8), recall, reliability, risk.

Drawn with matplotlib's objects on an Agg canvas, never through pyplot: no display is needed, no
global figure is left behind, and threads do not interfere.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import FuncFormatter, PercentFormatter

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.calibration import reliability_bins
from rcmnet_jax.evaluation.intervals import Proportion
from rcmnet_jax.evaluation.plot_style import (
    BLUE,
    GREY,
    INK,
    PALE_BLUE,
    RED,
    class_ticks,
    clean,
    new_figure,
    plain_number,
    save,
    short_names,
)
from rcmnet_jax.evaluation.selective import risk_coverage

# With more classes the numbers in the cells cannot be read, and only the colours stay.
_MOST_WRITTEN_CLASSES = 24


def _checked(confusion: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """(K, K) counts of K named classes, at least one image."""
    confusion, count = np.asarray(confusion), len(class_names)
    if confusion.shape != (count, count) or not confusion.any():
        raise DataError(
            f"{int(confusion.sum())} images in a confusion matrix of shape {confusion.shape} for "
            f"{count} class names; give (K, K) counts of at least one image and K names"
        )
    return confusion


def plot_confusion(
    confusion: np.ndarray,
    class_names: Sequence[str],
    path: Path | str,
    *,
    normalise: bool = True,
    synthetic: bool = False,
) -> None:
    """The confusion matrix: counts in the cells, colour by the share of the row.

    Args:
        confusion: (K, K) int, rows true.
        class_names: K names.
        path: the PNG, 1000 px wide.
        normalise: colour by row percent, as the paper's Figure 8; else by count.
        synthetic: say in the title that the images are synthetic.

    Raises:
        DataError: not a square matrix with one name for each class, or no image in it.
        UserError: the file cannot be written.
    """
    confusion = _checked(confusion, class_names)
    count = len(class_names)
    support = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(support, 1)
    height = 8.6 if count > 2 else 7.0
    right, total = int(np.trace(confusion)), int(confusion.sum())
    title = f"Confusion matrix, {right}/{total} correct"
    figure = new_figure(height, title, synthetic)
    axes = figure.add_subplot()
    # The square root lifts the rare errors, all below 5 %, out of the white.
    norm = PowerNorm(0.5, 0.0, 1.0 if normalise else max(1.0, float(confusion.max())))
    shown = share if normalise else confusion
    image = axes.imshow(shown, cmap="Blues", norm=norm, aspect="equal")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    if normalise:
        bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
        bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    bar.set_label("share of the true class" if normalise else "images", fontsize=12)
    if count <= _MOST_WRITTEN_CLASSES:
        _write_cells(axes, confusion, share if normalise else None, np.asarray(norm(shown)))
    names = short_names(class_names)
    class_ticks(axes, names, "x")
    counted = [f"{n} ({s})" for n, s in zip(names, support[:, 0], strict=True)]
    class_ticks(axes, counted, "y")
    axes.set_xlabel("predicted class", fontsize=13)
    axes.set_ylabel("true class (images)", fontsize=13)
    axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
    axes.grid(which="minor", color="#EEEEEE", linewidth=1)
    axes.tick_params(which="minor", length=0)
    save(figure, path)


def _write_cells(
    axes: Axes, confusion: np.ndarray, share: np.ndarray | None, depth: np.ndarray
) -> None:
    """Counts, and row percents below where there is room; empty cells stay empty."""
    count = len(confusion)
    size = {True: 18.0, False: max(6.0, 15.0 - 0.45 * count)}[count <= 3]
    for i, j in zip(*np.nonzero(confusion), strict=True):
        text = str(confusion[i, j])
        if share is not None and count <= 12:
            # 100.0 is kept for rows without an error.
            percent = 100 * share[i, j] if share[i, j] == 1 else min(100 * share[i, j], 99.9)
            text += f"\n{percent:.1f} %"
        colour = "white" if depth[i, j] > 0.6 else INK
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)


def plot_reliability(
    labels: np.ndarray,
    probabilities: np.ndarray,
    path: Path | str,
    *,
    bins: int = 15,
    synthetic: bool = False,
) -> None:
    """Accuracy against confidence in bins of equal width, and how many images lie in each.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        path: the PNG, 1000 px wide.
        bins: number of bins.
        synthetic: say in the title that the images are synthetic.

    Raises:
        DataError: predictions of the wrong form.
        UserError: no bins, or the file cannot be written.
    """
    table = reliability_bins(labels, probabilities, bins)
    filled = np.flatnonzero(table.count)
    pairs = [Proportion.of(table.correct[m], table.count[m]) for m in filled]
    accuracy = table.accuracy[filled]
    limits = np.array([[p.low, p.high] for p in pairs]).T
    title = f"Reliability, ECE {table.ece:.4f} ({bins} bins of equal width)"
    figure = new_figure(7.5, title, synthetic)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
    axes, below = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1.5, label="honest confidence")
    axes.errorbar(
        table.confidence[filled],
        accuracy,
        # Clipped: rounding may put a limit 1e-17 inside the point.
        yerr=np.maximum(0, [accuracy - limits[0], limits[1] - accuracy]),
        fmt="o-",
        color=BLUE,
        ecolor=PALE_BLUE,
        capsize=3,
        lw=1.8,
        label="model, with 95 % Wilson intervals",
    )
    axes.set_ylabel("accuracy", fontsize=12)
    axes.set_ylim(0, 1.03)
    axes.legend(frameon=False, fontsize=12, loc="upper left")
    below.bar(table.edges[:-1], table.count, np.diff(table.edges), align="edge", color=BLUE)
    below.set_yscale("log")  # most images sit in the last bin
    below.yaxis.set_major_formatter(FuncFormatter(plain_number))
    below.set_ylabel("images, log scale", fontsize=12)
    below.set_ylim(0.5, 2 * int(table.count.max()))
    below.set_xlabel("probability of the predicted class", fontsize=12)
    for panel in (axes, below):
        panel.set_xlim(0, 1.01)
        clean(panel)
    save(figure, path)


def plot_risk_coverage(
    labels: np.ndarray,
    probabilities: np.ndarray,
    path: Path | str,
    *,
    chosen: float | None = None,
    synthetic: bool = False,
) -> None:
    """Share of errors among the accepted images, by the share accepted.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        path: the PNG, 1000 px wide.
        chosen: share of images accepted by the threshold in use, to be marked.
        synthetic: say in the title that the images are synthetic.

    Raises:
        DataError: predictions of the wrong form.
        UserError: the file cannot be written.
    """
    curve = risk_coverage(labels, probabilities)
    title = f"Risk and coverage, area {curve.area:.4f}"
    figure = new_figure(5.5, title, synthetic)
    axes = figure.add_subplot()
    axes.step(curve.coverage, curve.risk, where="pre", color=BLUE, lw=1.8)
    if chosen is not None:
        label = f"threshold in use accepts {100 * chosen:.1f} %"
        axes.axvline(chosen, color=RED, ls="--", lw=1.4, label=label)
        axes.legend(frameon=False, fontsize=12, loc="upper left")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, None)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=1))
    axes.set_xlabel("coverage: images accepted without review", fontsize=12)
    axes.set_ylabel("risk: errors among them", fontsize=12)
    clean(axes)
    save(figure, path)


def plot_per_class(
    confusion: np.ndarray,
    class_names: Sequence[str],
    path: Path | str,
    *,
    confidence: float = 0.95,
    synthetic: bool = False,
) -> None:
    """Recall of each class with its Wilson interval and k/n.

    Args:
        confusion: (K, K) int, rows true.
        class_names: K names.
        path: the PNG, 1000 px wide.
        confidence: of the intervals.
        synthetic: say in the title that the images are synthetic.

    Raises:
        DataError: not a square matrix with one name for each class, or no image in it.
        UserError: the file cannot be written.
    """
    confusion = _checked(confusion, class_names)
    count = len(class_names)
    pairs = [Proportion.of(confusion[k, k], confusion[k].sum(), confidence) for k in range(count)]
    present = [k for k, pair in enumerate(pairs) if pair.n]
    value = scores.recall(confusion)[present]
    limits = np.array([[pairs[k].low, pairs[k].high] for k in present]).T
    title = f"Recall by class, {100 * confidence:g} % Wilson intervals"
    figure = new_figure(1.9 + 0.46 * count, title, synthetic)
    axes = figure.add_subplot()
    error = np.maximum(0, [value - limits[0], limits[1] - value])
    axes.errorbar(value, present, xerr=error, fmt="o", ms=8, color=BLUE, capsize=5, lw=2)
    for k, pair in enumerate(pairs):
        text = f"{pair.k}/{pair.n}" if pair.n else "no images"
        place = axes.get_yaxis_transform()
        axes.text(1.01, k, text, transform=place, va="center", fontsize=11, color=INK)
    mean = float(np.mean(value))
    axes.axvline(mean, color=RED, ls="--", lw=1.4, label=f"balanced accuracy {100 * mean:.2f} %")
    low = float(limits[0].min())
    axes.set_xlim(max(0.0, low - 0.1 * (1 - low) - 0.01), 1 + 0.02 * (1 - low) + 0.001)
    axes.set_ylim(count - 0.4, -0.6)
    class_ticks(axes, short_names(class_names), "y")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.set_xlabel("recall", fontsize=12)
    figure.legend(frameon=False, fontsize=11, loc="outside lower right")
    clean(axes, "x")
    save(figure, path)
