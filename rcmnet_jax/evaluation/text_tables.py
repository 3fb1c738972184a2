"""Plain-text tables for the terminal, and numbers in them that never round up to perfection."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells to lines: first and last column flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def percent_floor(value: float) -> str:
    """A percentage with two decimals that reads 100.00 only if it is."""
    return f"{100 * value:.2f}" if value == 1 else f"{min(100 * value, 99.99):.2f}"


def fraction_floor(value: float | None) -> str:
    """A score with four decimals that reads 1.0000 only if it is; ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value >= 1 else f"{min(value, 0.9999):.4f}"


def show_range(low: float | None, high: float | None, *, percent: bool) -> str:
    """``[low, high]`` for a table, or ``-``."""
    if low is None or high is None:
        return "-"
    if percent:
        return f"[{percent_floor(low)}, {percent_floor(high)}]"
    return f"[{low:.4f}, {high:.4f}]"
