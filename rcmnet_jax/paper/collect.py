"""Results of a plan's finished runs, read from the files in their folders."""

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
class TableEntry:
    """The accuracy of one network in one table under one protocol, over its seeds.

    Attributes:
      counts: (k, n) of each seed, in order.
      top5: likewise; None with five classes or fewer.
      summary: mean and spread of the accuracies.
      low, high: 95 % Wilson interval of a run with the mean count.
      synthetic: whether the cells are drawn.
    """

    counts: tuple[tuple[int, int], ...]
    top5: tuple[tuple[int, int], ...] | None
    summary: SeedSummary
    low: float
    high: float
    synthetic: bool


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of accuracies on the same test images.

    Attributes:
      value: of the means over seeds, or of two runs.
      low, high: 95 % limits, if they can be computed.
      p_value: of no difference, if it can be computed.
      over_seeds: whether the limits cover other seeds too (`compare_seeds`); otherwise they come
        from the paired bootstrap of two runs, and the p-value is McNemar's.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    over_seeds: bool


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of all finished runs.

    Attributes:
      entries: by (protocol, stage, model).
      comparisons: by (protocol, stage, model): RCMNet minus that network.
      gains: by (protocol, model): after transfer minus from scratch.
      metrics: contents of ``test_metrics.json`` by (protocol, stage, model, seed).
    """

    entries: dict[tuple[str, str, str], TableEntry]
    comparisons: dict[tuple[str, str, str], Difference]
    gains: dict[tuple[str, str], Difference]
    metrics: dict[tuple[str, str, str, int], dict[str, Any]]


def collect(runs: Sequence[PlannedRun]) -> Results:
    """Reads every finished run of a plan."""
    done = {(run.protocol, run.stage, run.model, run.seed): run for run in runs if run.is_done()}
    metrics = {
        key: json.loads((run.workdir / "test_metrics.json").read_text())
        for key, run in done.items()
    }
    entries = {}
    for key in sorted({key[:3] for key in done}):
        entries[key] = _entry([metrics[k] for k in sorted(metrics) if k[:3] == key])
    tables: dict[tuple[str, str, str], list[Path]] = {}
    for (protocol, stage, model, _), run in sorted(done.items(), key=lambda item: item[0]):
        tables.setdefault((protocol, stage, model), []).append(run.workdir / "test_predictions.csv")
    comparisons, gains = {}, {}
    for (protocol, stage, model), files in tables.items():
        ours = tables.get((protocol, stage, "rcmnet"))
        if model != "rcmnet" and ours:
            comparisons[protocol, stage, model] = _difference(files, ours)
        before = tables.get((protocol, "scratch", model))
        if stage == "transfer" and before:
            gains[protocol, model] = _difference(before, files)
    return Results(entries, comparisons, gains, metrics)


def _difference(before: Sequence[Path], after: Sequence[Path]) -> Difference:
    """After minus before: over all seeds where both have several, else of the first of each."""
    if min(len(before), len(after)) > 1:
        over_seeds = compare_seeds(before, after)
        difference = over_seeds.accuracy
        return Difference(
            difference.value, difference.low, difference.high, difference.p_value, True
        )
    single = compare(before[0], after[0])
    interval = single.accuracy_difference
    assert interval.value is not None
    return Difference(interval.value, interval.low, interval.high, single.p_value, False)


def _entry(contents: list[dict[str, Any]]) -> TableEntry:
    counts = tuple((c["accuracy"]["k"], c["accuracy"]["n"]) for c in contents)
    has_top5 = contents[0]["top5"] is not None
    summary = SeedSummary.of([k / n for k, n in counts])
    n = counts[0][1]
    low, high = wilson(round(summary.mean * n), n)
    return TableEntry(
        counts=counts,
        top5=tuple((c["top5"]["k"], c["top5"]["n"]) for c in contents) if has_top5 else None,
        summary=summary,
        low=low,
        high=high,
        synthetic=any(c["synthetic"] for c in contents),
    )
