"""Results of the planned runs, as far as there are any, read from what the runs wrote."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rcmnet_jax.evaluation.comparison import Comparison, compare
from rcmnet_jax.evaluation.intervals import wilson
from rcmnet_jax.evaluation.seeds import SeedSummary
from rcmnet_jax.paper.facts import NETWORKS
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
class Results:
    """All that is there.

    Attributes:
      cells: by (protocol, stage, model).
      comparisons: by (protocol, stage, model): that network against RCMNet on the first seed.
      gains: by (protocol, model): after transfer against from scratch, on the first seed.
      metrics: contents of ``test_metrics.json`` by (protocol, stage, model, seed).
    """

    cells: dict[tuple[str, str, str], Cell]
    comparisons: dict[tuple[str, str, str], Comparison]
    gains: dict[tuple[str, str], Comparison]
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
    tables = {key: run.workdir / "test_predictions.csv" for key, run in done.items()}
    comparisons, gains = {}, {}
    for protocol, stage, model, seed in done:
        ours = (protocol, stage, "rcmnet", seed)
        if seed == 0 and model != "rcmnet" and ours in done:
            comparisons[protocol, stage, model] = compare(
                tables[protocol, stage, model, seed],
                tables[ours],
                names=(NETWORKS[model], NETWORKS["rcmnet"]),
            )
        before = (protocol, "scratch", model, seed)
        if seed == 0 and stage == "transfer" and before in done:
            gains[protocol, model] = compare(
                tables[before],
                tables[protocol, stage, model, seed],
                names=("from scratch", "after transfer"),
            )
    return Results(cells, comparisons, gains, metrics)


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
