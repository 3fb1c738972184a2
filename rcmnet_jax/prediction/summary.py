"""What a folder of predictions amounts to: counts by status, and the differential count.

A differential gives each kind of white cell as a percentage of all white cells; erythroblasts
(nucleated red cells) are counted per 100 white cells and platelets apart, as laboratories report
them. Which class is which is told by its name.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rcmnet_jax.evaluation.intervals import wilson
from rcmnet_jax.inference.gate import ACCEPT, NOT_A_CELL, REVIEW, STATUSES

ERYTHROBLASTS = frozenset({"erythroblast", "normoblast", "nrbc", "nucleated red cell"})
PLATELETS = frozenset({"platelet", "thrombocyte", "plt"})
NO_CELLS = frozenset({"artefact", "artifact", "smudge", "debris", "background", "junk"})


def role_of(class_name: str) -> str:
    """``white``, ``erythroblast``, ``platelet`` or ``none``; white unless the name says other."""
    name = class_name.lower().replace("_", " ").strip()
    singular = name.removesuffix("s")
    for role, names in (
        ("erythroblast", ERYTHROBLASTS),
        ("platelet", PLATELETS),
        ("none", NO_CELLS),
    ):
        if name in names or singular in names:
            return role
    return "white"


def summarize(rows: Iterable[Mapping[str, str]], class_names: Sequence[str]) -> dict[str, Any]:
    """Counts of the rows of a prediction.

    Args:
      rows: with ``top_1`` and ``status``.
      class_names: of the model.

    Returns:
      ``status`` counts, and two differentials: of the accepted images, and of all but what is not
      a cell. Without a gate nothing is accepted or reviewed, and there is one, of all images.
    """
    by_status: dict[str, Counter[str]] = {status: Counter() for status in (*STATUSES, "")}
    for row in rows:
        by_status[row["status"]][row["top_1"]] += 1
    roles = {name: role_of(name) for name in class_names}
    if by_status[""]:
        return {"status": None, "differential": {"all": _differential(by_status[""], roles)}}
    accepted = by_status[ACCEPT]
    return {
        "status": {status: by_status[status].total() for status in STATUSES},
        "differential": {
            "accepted": _differential(accepted, roles),
            "accepted and review": _differential(accepted + by_status[REVIEW], roles),
        },
        "not_a_cell_by_class": dict(by_status[NOT_A_CELL]),
    }


def _differential(counts: Counter[str], roles: Mapping[str, str]) -> dict[str, Any]:
    white = sum(counts[name] for name, role in roles.items() if role == "white")
    red = sum(counts[name] for name, role in roles.items() if role == "erythroblast")

    def percent(count: int) -> dict[str, Any]:
        if not white:
            return {"count": count, "percent": None, "interval": None}
        interval = [100 * bound for bound in wilson(count, white)]
        return {"count": count, "percent": 100 * count / white, "interval": interval}

    return {
        "images": counts.total(),
        "white_cells": white,
        "percent_of_white": {n: percent(counts[n]) for n, r in roles.items() if r == "white"},
        "erythroblasts": red,
        "erythroblasts_per_100_white": 100 * red / white if white else None,
        "platelets": sum(counts[name] for name, role in roles.items() if role == "platelet"),
        "no_cells": sum(counts[name] for name, role in roles.items() if role == "none"),
    }


def summary_table(summary: Mapping[str, Any]) -> str:
    """The summary for a terminal."""
    lines = [f"images      {summary['images']}, bad files {summary['bad_files']}"]
    if summary["status"] is None:
        lines.append("status      none: this model has no thresholds (export a bundle to fit them)")
    else:
        counts = ", ".join(f"{name} {count}" for name, count in summary["status"].items())
        lines.append(f"status      {counts}")
    if not summary["calibrated"]:
        why = "; ".join(summary.get("not_fitted", [])) or "this model has no temperature"
        lines.append(f"note        probabilities are not calibrated: {why}")
    for basis, count in summary["differential"].items():
        lines += ["", f"differential count of {basis} images ({count['white_cells']} white cells)"]
        for name, cell in count["percent_of_white"].items():
            if cell["percent"] is None:
                continue
            low, high = cell["interval"]
            lines.append(
                f"  {name:<16}{cell['count']:>7}{cell['percent']:>8.1f} %   [{low:.1f}, {high:.1f}]"
            )
        per_100 = count["erythroblasts_per_100_white"]
        if count["erythroblasts"] and per_100 is not None:
            lines.append(
                f"  erythroblasts {count['erythroblasts']:>9}, {per_100:.1f} per 100 white cells"
            )
        elif count["erythroblasts"]:
            lines.append(f"  erythroblasts {count['erythroblasts']:>9}")
        lines.append(f"  platelets     {count['platelets']:>9}, apart")
    return "\n".join(lines)
