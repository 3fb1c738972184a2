"""The paper's tables with our numbers beside the paper's."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

from rcmnet_jax.paper.architecture import architecture_rows
from rcmnet_jax.paper.collect import Difference, Results, TableEntry
from rcmnet_jax.paper.plan import ReproductionSettings
from rcmnet_jax.paper.published import (
    CART_IMAGES,
    CART_VIEWS,
    NETWORKS,
    PBC_PER_CLASS,
    STAGES,
    TOP1,
    TOP5_PBC,
)

MISSING = "not run"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
      name: of its files, such as ``table5``.
      title: one line.
      columns: headings.
      rows: one cell for each heading.
      notes: sentences below the table.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [f"### {self.title}", ""]
        lines += [_pipes(self.columns), _pipes(["---"] * len(self.columns))]
        lines += [_pipes(row) for row in self.rows]
        return "\n".join([*lines, "", *self.notes, ""])

    def csv(self) -> str:
        """Headings and rows, comma-separated."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue()


def make_tables(settings: ReproductionSettings, results: Results) -> list[Table]:
    """Tables 1 to 7, as far as there are runs, and the gain by transfer."""
    tables = [
        *_count_tables(results),
        Table(
            "table4",
            "Table 4: the networks, counted from the modules",
            ("part", *NETWORKS.values()),
            architecture_rows(),
            ("Parameters with eight classes; map sizes for 363x360 images.",),
        ),
    ]
    for stage in STAGES:
        if stage.name in settings.stages:
            tables.append(_result_table(settings, results, stage.name, stage.table, stage.title))
    if "transfer" in settings.stages:
        tables.append(_gain_table(settings, results))
    return tables


def _count_tables(results: Results) -> list[Table]:
    """Tables 1 to 3: images of each class in each part of the split."""
    tables = []
    for stage, name, title, note in (
        (
            "pbc",
            "table1",
            "Table 1: the eight-class set, as built",
            f"The paper: {PBC_PER_CLASS['train']} to train and {PBC_PER_CLASS['test']} to test of"
            " each class (it prints a test total of 1,458; eight times 243 is 1,944). Validation is"
            " taken from the paper's training images.",
        ),
        (
            "scratch",
            "table2_3",
            "Tables 2 and 3: the two-class set, as built",
            f"The paper: {CART_IMAGES['train']} and {CART_IMAGES['test']} images, in six views"
            f" {CART_VIEWS['train']} and {CART_VIEWS['test']}.",
        ),
    ):
        keys = sorted(key for key in results.metrics if key[1] == stage)
        if not keys:
            continue
        rows = []
        for protocol in sorted({key[0] for key in keys}, reverse=True):
            key = next(k for k in keys if k[0] == protocol)
            counts: Mapping[str, Mapping[str, int]] = results.metrics[key]["meta"]["split"][
                "counts"
            ]
            for class_name in counts["train"]:
                numbers = [counts[part][class_name] for part in ("train", "val", "test", "dropped")]
                rows.append((protocol, class_name, *map(str, numbers)))
            totals = [str(sum(counts[p].values())) for p in ("train", "val", "test", "dropped")]
            rows.append((protocol, "total", *totals))
        columns = ("protocol", "class", "train", "validation", "test", "not used")
        tables.append(Table(name, title, columns, tuple(rows), (note,)))
    return tables


def _result_table(
    settings: ReproductionSettings, results: Results, stage: str, number: int, title: str
) -> Table:
    columns = ["network", "paper, %"]
    for protocol in settings.protocols:
        columns += [f"{protocol}: mean, %", "spread", "k/n by seed", "95 % (Wilson)"]
        columns += ["top-5"] if stage == "pbc" else []
        columns += [f"RCMNet minus it, points ({protocol})", "p"]
    rows = []
    for model in settings.models:
        row = [NETWORKS[model], f"{TOP1[stage][model]:.2f}"]
        for protocol in settings.protocols:
            row += _result_cells(results, protocol, stage, model)
        rows.append(tuple(row))
    notes = [
        "Mean and spread (standard deviation) over seeds; the interval is that of one run with the"
        " mean count and takes images as independent. The last two columns compare on the same"
        f" images: {COMPARISON_NOTE}",
    ]
    if stage == "pbc":
        notes.append(f"Top-5 in the paper: {TOP5_PBC:.0f} % for all six.")
    else:
        notes.append(
            "The paper's numbers are for its CAR-T images, which are not public: beside another"
            " set they are no target, and nothing here is a CAR-T result unless your images are."
        )
    if "paper" in settings.protocols:
        notes.append(PAPER_PROTOCOL_NOTE)
    if any(entry.synthetic for entry in results.entries.values()):
        notes.append("The cells are synthetic: these numbers say nothing about real ones.")
    return Table(
        f"table{number}", f"Table {number}: {title}", tuple(columns), tuple(rows), tuple(notes)
    )


COMPARISON_NOTE = (
    "over seeds and images as multi-reader studies do over readers and cases (Obuchowski &"
    " Rockette), where both have several seeds; else two runs by paired bootstrap and exact"
    " McNemar, marked *."
)
PAPER_PROTOCOL_NOTE = (
    "Protocol strict holds validation images out of the training part, chooses the best epoch on"
    " them and scores the test part once. Protocol paper follows the publication: it trains on them"
    " too, chooses the best epoch on the test part, and counts each two-class test image in six"
    " views."
)


def _result_cells(results: Results, protocol: str, stage: str, model: str) -> list[str]:
    entry = results.entries.get((protocol, stage, model))
    width = 7 if stage == "pbc" else 6
    if entry is None:
        return [MISSING] + ["-"] * (width - 1)
    spread = "one seed" if entry.summary.sd is None else f"{100 * entry.summary.sd:.2f}"
    cells = [
        f"{100 * entry.summary.mean:.2f}",
        spread,
        " ".join(f"{k}/{n}" for k, n in entry.counts),
        f"{100 * entry.low:.2f} to {100 * entry.high:.2f}",
    ]
    if stage == "pbc":
        cells.append(_top5(entry))
    comparison = results.comparisons.get((protocol, stage, model))
    return [*cells, *(_points(comparison) if comparison else ("-", "-"))]


def _gain_table(settings: ReproductionSettings, results: Results) -> Table:
    """Accuracy after transfer minus from scratch, on the same test images."""
    rows = []
    for model in settings.models:
        for protocol in settings.protocols:
            paper = TOP1["transfer"][model] - TOP1["scratch"][model]
            gain = results.gains.get((protocol, model))
            shown = _points(gain) if gain else (MISSING, "-")
            rows.append((NETWORKS[model], protocol, f"{paper:+.2f}", *shown))
    return Table(
        "transfer_gain",
        "Gain by transfer: Table 7 minus Table 6",
        ("network", "protocol", "paper, points", "here, points (95 %, paired)", "p"),
        tuple(rows),
        (f"On the same test images, {COMPARISON_NOTE}",),
    )


def _top5(entry: TableEntry) -> str:
    return "-" if entry.top5 is None else " ".join(f"{k}/{n}" for k, n in entry.top5)


def _points(difference: Difference) -> tuple[str, str]:
    """The difference in points with its limits, and the p-value."""
    mark = "" if difference.over_seeds else "*"
    limits = ""
    if difference.low is not None and difference.high is not None:
        limits = f" ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
    p_value = "-" if difference.p_value is None else f"{difference.p_value:.3g}"
    return f"{100 * difference.value:+.2f}{limits}{mark}", p_value


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
