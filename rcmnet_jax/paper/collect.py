"""Results of the planned runs, as far as there are any, read from what the runs wrote."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rcmnet_jax.evaluation.comparison import compare
from rcmnet_jax.evaluation.intervals import wilson
from rcmnet_jax.evaluation.seeds import SeedSummary, compare_seeds
from rcmnet_jax.paper.plan import PlannedRun


@dataclasses.dataclass(frozen=True)
class Cell:
    """One network in one table under one protocol, over its seeds.

    Attributes:
      counts: (k, n) of each seed, in order.
      top5: the same, or None where there are five classes or fewer.
      summary: of the accuracies.
      low, high: 95 % Wilson interval of a run with the mean count.
      synthetic: the cells are drawn.
    """

    counts: tuple[tuple[int, int], ...]
    top5: tuple[tuple[int, int], ...] | None
    summary: SeedSummary
    low: float
    high: float
    synthetic: bool


@dataclasses.dataclass(frozen=True)
class Gain:
    """A difference of accuracies on the same test images.

    Attributes:
      value: of the means over seeds, or of two runs.
      low, high: 95 % limits; None where they cannot be had.
      p_value: of no difference; None likewise.
      over_seeds: whether the limits hold for other seeds too (`compare_seeds`); else they are
        those of the paired bootstrap, and the p-value is McNemar's.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    over_seeds: bool


@dataclasses.dataclass(frozen=True)
class Results:
    """All that is there.

    Attributes:
      cells: by (protocol, stage, model).
      comparisons: by (protocol, stage, model): RCMNet minus that network.
      gains: by (protocol, model): after transfer minus from scratch.
      metrics: contents of ``test_metrics.json`` by (protocol, stage, model, seed).
    """

    cells: dict[tuple[str, str, str], Cell]
    comparisons: dict[tuple[str, str, str], Gain]
    gains: dict[tuple[str, str], Gain]
    metrics: dict[tuple[str, str, str, int], dict[str, Any]]


def collect(runs: Sequence[PlannedRun]) -> Results:
    """Reads every finished run of a plan."""
    done = {(run.protocol, run.stage, run.model, run.seed): run for run in runs if run.is_done()}
    metrics = {
        key: json.loads((run.workdir / "test_metrics.json").read_text())
        for key, run in done.items()
    }
    cells = {}
    for key in sorted({key[:3] for key in done}):
        cells[key] = _cell([metrics[k] for k in sorted(metrics) if k[:3] == key])
    tables: dict[tuple[str, str, str], list[Path]] = {}
    for (protocol, stage, model, _), run in sorted(done.items(), key=lambda item: item[0]):
        tables.setdefault((protocol, stage, model), []).append(run.workdir / "test_predictions.csv")
    comparisons, gains = {}, {}
    for (protocol, stage, model), files in tables.items():
        ours = tables.get((protocol, stage, "rcmnet"))
        if model != "rcmnet" and ours:
            comparisons[protocol, stage, model] = _gain(files, ours)
        before = tables.get((protocol, "scratch", model))
        if stage == "transfer" and before:
            gains[protocol, model] = _gain(before, files)
    return Results(cells, comparisons, gains, metrics)


def _gain(before: Sequence[Path], after: Sequence[Path]) -> Gain:
    """Over all seeds where both have several; else of the first of each, which is said."""
    if min(len(before), len(after)) > 1:
        over_seeds = compare_seeds(before, after)
        difference = over_seeds.accuracy
        return Gain(difference.value, difference.low, difference.high, difference.p_value, True)
    single = compare(before[0], after[0])
    interval = single.accuracy_difference
    assert interval.value is not None
    return Gain(interval.value, interval.low, interval.high, single.p_value, False)


def _cell(contents: list[dict[str, Any]]) -> Cell:
    counts = tuple((c["accuracy"]["k"], c["accuracy"]["n"]) for c in contents)
    has_top5 = contents[0]["top5"] is not None
    summary = SeedSummary.of([k / n for k, n in counts])
    n = counts[0][1]
    low, high = wilson(round(summary.mean * n), n)
    return Cell(
        counts=counts,
        top5=tuple((c["top5"]["k"], c["top5"]["n"]) for c in contents) if has_top5 else None,
        summary=summary,
        low=low,
        high=high,
        synthetic=any(c["synthetic"] for c in contents),
    )
