"""What a folder of predictions amounts to: counts by status, and the differential count.

A differential gives each kind of white cell as a percentage of all white cells; erythroblasts
(nucleated red cells) are counted per 100 white cells and platelets apart, as laboratories report
them. Words of a class's name say which it is; a file can say otherwise.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rcmnet_jax.data.tables import read_table
from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.intervals import wilson
from rcmnet_jax.inference.gate import ACCEPT, NOT_A_CELL, REVIEW, STATUSES, UNLIKE

ROLES = ("white", "erythroblast", "platelet", "none")
# Role -> the words, singular, that give it to a class; the first role that fits holds. The
# abbreviations are those of PBC and of bone-marrow sets (EBO, PEB: erythroblasts; KSC: smudge
# cells; ART: artefacts; NIF: not identifiable).
WORDS = {
    "none": """artefact artifact art smudge basket gumprecht ksc debris dirt background junk stain
        precipitate deposit unidentified unidentifiable unknown nif nothing empty none unclassified
        unclassifiable parasite malaria plasmodium megakaryocyte micromegakaryocyte""",
    "erythroblast": """erythroblast erythroblasten normoblast normoblasten rubriblast rubricyte
        metarubricyte nrbc erb ebo peb""",
    "platelet": "platelet thrombocyte thrombozyt thrombozyten plt",
    # Without a nucleus: neither white cells nor erythroblasts.
    "red": """rbc erythrocyte erythrozyt erythrozyten reticulocyte sickle target burr teardrop
        spherocyte acanthocyte echinocyte schistocyte elliptocyte ovalocyte stomatocyte codocyte
        dacrocyte dacryocyte drepanocyte keratocyte poikilocyte macrocyte microcyte rouleaux""",
}
_ROLE_OF_WORD = {word: role for role, words in WORDS.items() for word in words.split()}
PHRASES = {
    "nucleated red": "erythroblast",
    "red blood": "red",
    "red cell": "red",
    "naked nucleus": "none",
    "bare nucleus": "none",
    "not a cell": "none",
    "no cell": "none",
    "not identifiable": "none",
}
# Above this fraction the summary says what to do about images unlike the training images.
MANY_UNLIKE = 0.5


def role_of(class_name: str) -> str:
    """One of `ROLES`, by the words of a class's name; white unless a word says otherwise."""
    # camelCase and "nRBC" are words too; letters of any script are.
    spaced = re.sub(r"(?<=[a-z]{2})(?=[A-Z])", " ", class_name)
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    singular = [re.sub(r"(?<=\w{3})(?<![us])s$", "", word) for word in words]
    text = f" {' '.join(singular)} "
    found = {role for phrase, role in PHRASES.items() if f" {phrase} " in text}
    if any(word.endswith(("erythroblast", "normoblast")) for word in singular):
        found.add("erythroblast")
    found |= {_ROLE_OF_WORD[word] for word in [*words, *singular] if word in _ROLE_OF_WORD}
    for role in ("none", "erythroblast", "platelet", "red"):
        if role in found:
            return "none" if role == "red" else role
    return "white"


def read_roles(path: Path, class_names: Sequence[str]) -> dict[str, str]:
    """Roles by class from a CSV with the columns ``class`` and ``role``.

    Args:
      path: the file; classes it does not name keep the role of their name.
      class_names: of the model.

    Raises:
      UserError: the file cannot be read, or names a class or role that does not exist.
    """
    table = read_table(path, "--roles")
    if not table.rows or not {"class", "role"} <= set(table.columns):
        raise UserError(f"--roles {path} lacks the columns class,role: name them in its first line")
    roles = {name: role_of(name) for name in class_names}
    for number, row in table.rows:
        name, role = row["class"], row["role"].lower()
        if name not in roles:
            raise UserError(
                f"--roles {path} line {number}: the model has no class {name!r}, only"
                f" {', '.join(class_names)}"
            )
        if role not in ROLES:
            raise UserError(
                f"--roles {path} line {number}: {role!r} is not one of {', '.join(ROLES)}"
            )
        roles[name] = role
    return roles


def summarize(
    rows: Iterable[Mapping[str, str]],
    class_names: Sequence[str],
    roles: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Counts of the rows of a prediction.

    Args:
      rows: with ``top_1`` and ``status``.
      class_names: of the model.
      roles: of each class, from `read_roles`; by their names when None.

    Returns:
      ``roles`` of the classes, ``status`` counts, and two differentials: of the accepted images,
      and of those to review as well. Without a gate nothing is accepted or reviewed, and there is
      one, of all images.
    """
    by_status: dict[str, Counter[str]] = {status: Counter() for status in (*STATUSES, "")}
    for row in rows:
        by_status[row["status"]][row["top_1"]] += 1
    roles = roles or {name: role_of(name) for name in class_names}
    if by_status[""]:
        differential = {"all": _differential(by_status[""], roles)}
        return {"roles": dict(roles), "status": None, "differential": differential}
    accepted = by_status[ACCEPT]
    return {
        "roles": dict(roles),
        "status": {status: by_status[status].total() for status in STATUSES},
        "differential": {
            "accepted": _differential(accepted, roles),
            "accepted and review": _differential(accepted + by_status[REVIEW], roles),
        },
        "unlike_by_class": dict(by_status[UNLIKE]),
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
        unlike = summary["status"].get(UNLIKE, 0)
        if unlike > MANY_UNLIKE * summary["images"]:
            lines.append(
                f"warning     {unlike} of {summary['images']} images are unlike those the model was"
                " trained on\n            (another microscope, stain or magnification): do not rely"
                " on their\n            classes. Fine-tune on some labelled images of your own:"
                " docs/other_lab.md"
            )
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
    lines += ["", "counted as (--roles changes it)"]
    for role in ROLES:
        names = [name for name, own in summary["roles"].items() if own == role]
        if names:
            lines.append(f"  {role:<14}{', '.join(names)}")
    return "\n".join(lines)
