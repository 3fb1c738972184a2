"""The paper's figures: samples per class, curves and confusion, and where the networks looked."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rcmnet_jax.evaluation.plot_style import (
    BLUE,
    PALE_BLUE,
    RED,
    class_ticks,
    clean,
    new_figure,
    save,
    short_names,
)
from rcmnet_jax.explain.explanation import ExplainSettings, explain_images
from rcmnet_jax.paper.collect import Results
from rcmnet_jax.paper.plan import PlannedRun
from rcmnet_jax.paper.published import NETWORKS

# What Figures 9 and 10 set side by side.
SHOWN_NETWORKS = ("resnet18", "resnet18_c", "resnet18_m", "rcmnet")
MAPS = 8


def draw_figures(
    runs: Sequence[PlannedRun], results: Results, out: Path, protocol: str
) -> list[tuple[str, Path]]:
    """Draws the figures of the finished runs.

    Args:
      runs: the plan.
      results: of the finished runs.
      out: folder of the report; the figures go to ``figures/``.
      protocol: whose runs to show.

    Returns:
      Title and PNG of each figure.
    """
    folder = out / "figures"
    done = {
        (run.stage, run.model): run
        for run in runs
        if run.protocol == protocol and run.seed == 0 and run.is_done()
    }
    figures = []
    for stage, number in (("pbc", 2), ("scratch", 3)):
        key = next((k for k in results.metrics if k[0] == protocol and k[1] == stage), None)
        if key is not None:
            path = folder / f"figure{number}_counts.png"
            _draw_counts(results.metrics[key], path)
            figures.append((f"Figure {number}: images of each class in each part", path))
    ours = done.get(("pbc", "rcmnet")) or next(iter(done.values()), None)
    if ours is not None:
        figures += _curves_and_confusion(ours, folder)
    return figures + _grad_cam_figures(done, folder)


def _draw_counts(metrics: dict, path: Path) -> None:
    counts = metrics["meta"]["split"]["counts"]
    names = list(counts["train"])
    figure = new_figure(5.0, "Images by class and part", metrics["synthetic"])
    axes = figure.add_subplot()
    bottom = np.zeros(len(names))
    for part, colour in (("train", BLUE), ("val", PALE_BLUE), ("test", RED)):
        heights = np.asarray([counts[part][name] for name in names])
        if heights.any():
            axes.bar(range(len(names)), heights, bottom=bottom, color=colour, label=part)
        bottom += heights
    class_ticks(axes, short_names(names), "x")
    axes.set_ylabel("images", fontsize=12)
    # Beside the bars, which fill the axes.
    axes.legend(frameon=False, fontsize=11, loc="upper left", bbox_to_anchor=(1, 1))
    clean(axes)
    save(figure, path)


def _curves_and_confusion(run: PlannedRun, folder: Path) -> list[tuple[str, Path]]:
    figures = []
    for name, title in (
        ("curves.png", "loss and accuracy over the epochs"),
        ("test_confusion.png", "confusion matrix of the test part"),
    ):
        source = run.workdir / name
        if source.exists():
            target = folder / f"figure8_{name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            figures.append((f"Figure 8: {title}, {NETWORKS[run.model]}", target))
    return figures


def _grad_cam_figures(
    done: dict[tuple[str, str], PlannedRun], folder: Path
) -> list[tuple[str, Path]]:
    """Figures 9 (before transfer), 10 (after it) and 11 (failures after it)."""
    figures = []
    for number, stage, title in (
        (9, "scratch", "trained from scratch"),
        (10, "transfer", "after the transfer"),
    ):
        shown = [done[stage, model] for model in SHOWN_NETWORKS if (stage, model) in done]
        if not shown:
            continue
        target = folder / f"figure{number}"
        explain_images(
            ExplainSettings(
                models=tuple(run.workdir for run in shown),
                part="test",
                out=target,
                limit=MAPS,
                data_dir=shown[0].config.data.data_dir or None,
                batch_size=MAPS,
            )
        )
        figures.append((f"Figure {number}: Grad-CAM, {title}", target / "grid.png"))
        if stage == "transfer" and (target / "failures.png").exists():
            figures.append(("Figure 11: Grad-CAM of failures", target / "failures.png"))
    return figures


def page_sized(path: Path, *, longest: int = 1600) -> Image.Image:
    """A figure as an image of at most `longest` pixels a side."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((longest, longest))
    return image
