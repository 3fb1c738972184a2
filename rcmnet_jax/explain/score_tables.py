"""Scores of maps as tables, for the terminal and the page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

_LOCALISATION = (
    "Against boxes around {images} cells. Pointing: the map's maximum lies in the box. Energy: the"
    " share of the map in the box. Area: the box's share of the picture, a constant map's energy."
)
_RANDOMISATION = (
    "Rank correlation with the trained network's maps while modules are reset to random weights,"
    " from the top down. Maps that depend on what was learned fall towards 0."
)
_FAITHFULNESS = (
    "Area under the class's probability while pixels are blurred (deletion, lower is better) or"
    " restored (insertion, higher is better), most important first."
)


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """A caption, headings, and rows of as many cells; intervals are 95 %."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """The table for a terminal, without its caption."""
        rows = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]


def score_tables(scores: Mapping[str, Any]) -> list[ScoreTable]:
    """Tables of one network's scores.

    Args:
      scores: its entry in ``scores.json``.
    """
    tables = _localisation_tables(scores["localisation"]) if "localisation" in scores else []
    if found := scores.get("randomisation"):
        rows = [(name, _estimate(row)) for name, row in found.items()]
        tables.append(ScoreTable(_RANDOMISATION, ("reset down to", "correlation"), rows))
    if found := scores.get("faithfulness"):
        areas = [
            (_words(name), _estimate(row["deletion_area"]), _estimate(row["insertion_area"]))
            for name, row in found.items()
        ]
        columns = ("pixels in the order of", "deletion", "insertion")
        tables.append(ScoreTable(_FAITHFULNESS, columns, areas))
    return tables


def _localisation_tables(found: Mapping[str, Any]) -> list[ScoreTable]:
    named = {"trained": found["trained"]}
    named |= {f"trained: {name}": row for name, row in found["per_class"].items()}
    named |= {f"untrained, seed {seed}": row for seed, row in found["untrained"].items()}
    named |= {_words(name): row for name, row in found["controls"].items()}
    rows = [
        (
            name,
            f"{row['pointing']['k']}/{row['pointing']['n']}",
            _estimate(row["pointing"]),
            _estimate(row["energy"]),
            f"{row['area']:.3f}",
            str(row["empty"]),
        )
        for name, row in named.items()
    ]
    columns = ("maps", "pointing", "share", "energy", "area", "empty")
    tables = [ScoreTable(_LOCALISATION.format(images=found["images"]), columns, rows)]
    pairs = [
        (
            name,
            _estimate(pair["energy_difference"]),
            str(pair["hits_only_first"]),
            str(pair["hits_only_second"]),
            f"{pair['mcnemar_p']:.2g}",
        )
        for name, pair in found.items()
        if name.startswith("minus ")
    ]
    if pairs:
        heads = ("difference", "energy", "hits only here", "hits only there", "McNemar p")
        tables.append(ScoreTable("Compared on the same cells.", heads, pairs))
    return tables


def _words(name: str) -> str:
    return name.replace("_", " ")


def _estimate(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "not defined"
    limits = "" if entry["low"] is None else f" ({entry['low']:.3f} to {entry['high']:.3f})"
    return f"{entry['value']:.3f}{limits}"
