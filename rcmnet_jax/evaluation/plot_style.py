"""Style of all figures: an Agg canvas without global state, colours, ticks, PNGs written whole.

The colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rcmnet_jax.evaluation.fonts import drawable_names, use_fallback_fonts
from rcmnet_jax.files import replacing

BLUE, PALE_BLUE, RED, GREEN, GREY, INK = (
    "#0072B2",
    "#7FB8D8",
    "#D55E00",
    "#009E73",
    "#8A8A8A",
    "#222222",
)
WIDTH = 10.0  # inches: 1000 px
_DPI = 100
_LONGEST_NAME = 22


def new_figure(height: float, title: str, synthetic: bool) -> Figure:
    """A figure 1000 px wide with its title, which names synthetic images as such."""
    figure = Figure(figsize=(WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.1, h_pad=0.1)  # type: ignore[call-arg]
    shown = f"{title}, synthetic images" if synthetic else title
    figure.suptitle(shown, fontsize=15, color=INK, parse_math=False)
    return figure


def save(figure: Figure, path: Path | str) -> None:
    """Write the PNG, whole or not at all, without version or date: same data, same bytes."""
    use_fallback_fonts(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def clean(axes: Axes, grid: str = "y") -> None:
    """No box, a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#DDDDDD", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=11)


def short_names(names: Sequence[str]) -> list[str]:
    """Names that leave room for the figure; the end stays, since it often tells them apart."""
    names = drawable_names([str(name) for name in names])
    return [
        n if len(n) <= _LONGEST_NAME else f"{n[:10]}…{n[-(_LONGEST_NAME - 11) :]}" for n in names
    ]


def class_ticks(axes: Axes, names: Sequence[str], which: str) -> None:
    """Class names at 0..K-1; a ``$`` in a name is a character, not mathematics."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(range(len(names)), names, fontsize=11 if len(names) <= 16 else 8)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)
        if which == "x" and len(names) > 2:
            label.set(rotation=35, horizontalalignment="right", rotation_mode="anchor")


def plain_number(value: float, _position: int = 0) -> str:
    """A tick of a log axis as people write it: 0.05, 100."""
    return f"{value:g}"
