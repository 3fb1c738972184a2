"""The report of a reproduction: one page, the tables as Markdown and CSV, the figures."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.checkpoints.provenance import collect_provenance
from rcmnet_jax.evaluation.results import write_json
from rcmnet_jax.files import write_text
from rcmnet_jax.html import image_uri, write_page
from rcmnet_jax.paper.collect import Results
from rcmnet_jax.paper.figures import draw_figures, page_sized
from rcmnet_jax.paper.paper_tables import Table, make_tables
from rcmnet_jax.paper.plan import PlannedRun, ReproductionSettings


def write_pages(
    settings: ReproductionSettings,
    runs: Sequence[PlannedRun],
    results: Results,
    failed: Sequence[str],
    *,
    figures: bool,
) -> None:
    """Writes ``report.html``, ``report.md``, ``tables/*.csv``, ``figures/`` and ``report.json``.

    Args:
      settings: what to reproduce.
      runs: the plan.
      results: of the finished runs.
      failed: a line for each run that could not be trained.
      figures: whether to draw figures, which takes a minute for Grad-CAM.

    Raises:
      UserError: a file cannot be written.
    """
    out = settings.out
    tables = make_tables(settings, results)
    for table in tables:
        write_text(out / "tables" / f"{table.name}.csv", table.csv())
    drawn = draw_figures(runs, results, out, settings.protocols[0]) if figures else []
    facts = _facts(settings, runs, results)
    write_text(out / "report.md", _markdown(facts, tables, drawn, failed, out))
    write_json(
        out / "report.json",
        {"facts": facts, "failed": list(failed), "runs": [_record(run, results) for run in runs]},
    )
    write_page(
        out / "report.html",
        "paper.html",
        title="RCMNet, table by table",
        facts=facts,
        tables=tables,
        figures=[(title, image_uri(np.asarray(page_sized(path)))) for title, path in drawn],
        failed=list(failed),
    )


def _facts(
    settings: ReproductionSettings, runs: Sequence[PlannedRun], results: Results
) -> list[tuple[str, str]]:
    """Images, protocol and machine: the context of every number."""
    provenance = collect_provenance()
    size = f"{settings.size}x{settings.size}" if settings.size else "native (363x360, 384x384)"
    done = len(results.metrics)
    size = "64x64" if settings.quick else size
    return [
        ("Paper", "Zhang et al. 2022, A deep learning model assists CAR-T therapy for leukemia"),
        ("Images", "synthetic cells, drawn by the library" if settings.quick else "yours"),
        ("Eight-class set", settings.pbc or "synthetic"),
        ("Two-class set", settings.cart or ("synthetic" if settings.quick else "none given")),
        ("Size", size),
        ("Protocols", ", ".join(settings.protocols)),
        ("Seeds", str(settings.seeds)),
        ("Runs", f"{done} of {len(runs)} done"),
        ("Split level", _levels(results)),
        ("Device", f"{provenance['device']['kind']} x {provenance['device']['count']}"),
        ("Date", datetime.datetime.now(datetime.UTC).date().isoformat()),
    ]


def _levels(results: Results) -> str:
    notes = {content["split_note"].split(";")[0] for content in results.metrics.values()}
    return "; ".join(sorted(notes)) or "no run is done"


def _record(run: PlannedRun, results: Results) -> dict[str, Any]:
    content = results.metrics.get((run.protocol, run.stage, run.model, run.seed))
    return {
        "protocol": run.protocol,
        "stage": run.stage,
        "model": run.model,
        "seed": run.seed,
        "workdir": str(run.workdir),
        "accuracy": content and content["accuracy"],
        "top5": content and content["top5"],
    }


def _markdown(
    facts: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    figures: Sequence[tuple[str, Path]],
    failed: Sequence[str],
    out: Path,
) -> str:
    lines = ["# RCMNet, table by table", ""]
    lines += [f"- {name}: {value}" for name, value in facts]
    lines += [f"- failed: {line}" for line in failed]
    lines += ["", *(table.markdown() for table in tables)]
    lines += [f"![{title}]({path.relative_to(out)})\n" for title, path in figures]
    return "\n".join(lines)
