"""Writes the report of one evaluation, as a page and as JSON with the same content."""

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcmnet_jax.checkpoints.open_model import TrainedNetwork
from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.metrics import percent_floor
from rcmnet_jax.evaluation.results import write_json
from rcmnet_jax.files import write_text
from rcmnet_jax.html import render
from rcmnet_jax.report import report_figures, run_sections, score_sections
from rcmnet_jax.report.claim_checklist import checklist
from rcmnet_jax.report.subgroup_columns import subgroup_columns
from rcmnet_jax.scoring.score import Scored


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Settings of a report.

    Attributes:
        review_budget: share of the images that people can look at.
        against: run, or predictions CSV, to compare with.
        seeds: runs of the same experiment with other seeds.
        columns: CSV with a column ``file`` and others that define subgroups.
        worst: number of errors shown with Grad-CAM.
        samples: bootstrap resamples.
        command: the command line, for the record.
    """

    review_budget: float = 0.05
    against: Path | None = None
    seeds: tuple[Path, ...] = ()
    columns: Path | None = None
    worst: int = 12
    samples: int = 2000
    command: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.review_budget < 1:
            raise UserError(
                f"the review budget is a share of the images in [0, 1), not {self.review_budget}"
            )
        if self.worst < 0:
            raise UserError(f"the number of worst errors cannot be negative, got {self.worst}")
        # Checked before a minute of work.
        for path in filter(None, (self.against, self.columns, *self.seeds)):
            if not path.exists():
                raise UserError(f"{path} does not exist: give a run, or a CSV, that does")


def write_report(
    restored: TrainedNetwork,
    scored: Scored,
    pixels: Any,
    validation: Scored | None,
    *,
    workdir: Path,
    out: Path,
    part_of: Mapping[str, str],
    parts_told: str,
    options: ReportOptions,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes ``<part>_report.html`` and ``<part>_report.json``.

    Args:
        restored: the network.
        scored: the images of the report.
        pixels: of the whole data set of `scored`, at the network's size.
        validation: the run's validation images, for temperature and threshold; None if it has none.
        workdir: of the run, for its curves.
        out: folder of the two files.
        part_of: part of each file of the data set, for balance and leaks.
        parts_told: a description of that split.
        options: see `ReportOptions`.
        extra: results on another lab's images, see `rcmnet_jax.scoring.other_lab`.

    Returns:
        The content of the JSON file.

    Raises:
        DataError: a comparison or a table of columns does not match the images.
        UserError: a file cannot be written.
    """
    content = _content(
        restored, scored, pixels, validation, workdir, part_of, parts_told, options, extra
    )
    errors = content["errors"]
    worst, layer = report_figures.worst_errors(restored, scored, pixels, errors[: options.worst])
    content["worst"] = {"shown": [error["file"] for error in worst], "layer": layer}
    content["claim"] = checklist(content)
    drawn = {
        "figures": report_figures.draw_plots(scored, restored.class_names, workdir, content),
        "cells": report_figures.matrix_cells(scored, restored.class_names),
        "worst": worst,
    }
    start = str(out / f"{scored.part}_report")
    write_text(f"{start}.html", render_page(content, drawn))
    write_json(f"{start}.json", content)
    return content


def render_page(content: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    """The page of a report.

    Args:
        content: of the JSON file.
        drawn: ``figures``, ``cells`` and ``worst`` from `rcmnet_jax.report.report_figures`.
    """
    return render(
        "report.html",
        c=content,
        drawn=drawn,
        title=content["title"],
        percent=_percent,
        number=_number,
    )


def _percent(value: float | None) -> str:
    # A no-break space keeps number and unit on one line.
    return "-" if value is None else f"{percent_floor(value)}\u00a0%"


def _number(value: float | None, digits: int = 4) -> str:
    """A number with decimals; shows 1.0000 only for exactly 1."""
    if value is None:
        return "-"
    shown = f"{value:.{digits}f}"
    return f"{1 - 10**-digits:.{digits}f}" if value < 1 and float(shown) == 1 else shown


def _content(
    restored: TrainedNetwork,
    scored: Scored,
    pixels: Any,
    validation: Scored | None,
    workdir: Path,
    part_of: Mapping[str, str],
    parts_told: str,
    options: ReportOptions,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of the report without the checklist, which is filled in from the rest."""
    names, samples, here = restored.class_names, options.samples, workdir.name
    run = run_sections.run_section(restored, workdir, scored)
    comparison = None
    if options.against is not None:
        comparison = score_sections.comparison_section(
            scored, names, here, options.against, samples
        )
    columns = subgroup_columns(scored.dataset, scored.files, options.columns)
    content: dict[str, Any] = {
        "title": f"{run['model']} ({here}), {scored.part} part: {scored.dataset.name}",
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "synthetic": scored.dataset.synthetic,
        "run": run,
        "data": run_sections.data_section(scored, pixels, part_of, parts_told),
        "scores": score_sections.score_section(scored, names, samples),
        "calibration": score_sections.calibration_section(scored, validation, samples),
        "review": score_sections.review_section(scored, validation, options.review_budget),
        "errors": score_sections.error_list(scored, names),
        "subgroups": score_sections.subgroup_section(scored, columns, samples),
        "seeds": score_sections.seed_section(here, scored, options.seeds),
        "comparison": comparison,
        "validation": restored.meta.get("val") or None,
        "provenance": run_sections.provenance_section(restored, scored, options.command),
        "external": extra,
    }
    content["card"] = run_sections.model_card(restored, scored, content)
    return content
