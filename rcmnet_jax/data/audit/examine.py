"""The audit: every file read once, what is kept, what is dropped, and what looks odd.

Kept: every file that decodes and whose bytes appear under one label only. Byte-identical copies
under the same label are kept here and marked; the split decides about them, as the paper's
protocol counts them and the strict one does not.
"""

import collections
import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.data.audit.findings import Finding, find_oddities
from rcmnet_jax.data.preprocess import inspect_and_decode
from rcmnet_jax.data.records import AuditRow
from rcmnet_jax.data.sources import Source
from rcmnet_jax.data.sources.source_file import SourceFile
from rcmnet_jax.data.threads import ordered_map, progress_bar
from rcmnet_jax.errors import BadImageError, DataError
from rcmnet_jax.files import write_text

AUDIT_VERSION = 1
KEPT, DROPPED, IGNORED = "kept", "dropped", "ignored"
EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Audit:
    """All rows of a source, sorted by file, and what was found.

    Attributes:
        source: the path the images came from.
        layout: "folder", "zip" or "manifest".
        fingerprint: of the source, see `open_source`.
        class_names: sorted.
        rows: every file found, the ignored ones last.
        findings: what to know before training, most serious first.
        notes: what the source had to say, such as manifest columns that are not used.
    """

    source: str
    layout: str
    fingerprint: str
    class_names: tuple[str, ...]
    rows: tuple[AuditRow, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[AuditRow, ...]:
        """The rows that become records, in record order."""
        return tuple(row for row in self.rows if row.status == KEPT)

    @property
    def data_sha256(self) -> str:
        """A hash of file, label and content of all that is kept."""
        digest = hashlib.sha256()
        for row in sorted(self.kept, key=lambda row: row.file):
            digest.update(f"{row.file}\0{row.label}\0{row.sha256}\n".encode())
        return digest.hexdigest()

    def counts_table(self) -> str:
        """Images kept and dropped of each class, as plain text."""
        kept = collections.Counter(row.label for row in self.rows if row.status == KEPT)
        dropped = collections.Counter(row.label for row in self.rows if row.status == DROPPED)
        ignored = sum(row.status == IGNORED for row in self.rows)
        width = max(len("class"), *(len(name) for name in self.class_names))
        lines = [f"{self.source} ({self.layout})", "", f"{'class':<{width}}    kept  dropped"]
        for name in self.class_names:
            lines.append(f"{name:<{width}}{kept[name]:>8}{dropped[name]:>9}")
        lines.append(f"{'total':<{width}}{sum(kept.values()):>8}{sum(dropped.values()):>9}")
        if ignored:
            lines.append(f"in no class, not used: {ignored}")
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])

    def table(self) -> str:
        """The audit as plain text: counts by class, then findings with examples."""
        lines = [self.counts_table(), ""]
        lines.append("findings:" if self.findings else "no findings")
        for finding in self.findings:
            lines.append(f"- {finding.message} [{finding.count}]")
            lines.extend(f"    {example}" for example in finding.examples[:EXAMPLES])
            if len(finding.examples) > EXAMPLES:
                lines.append(f"    and {len(finding.examples) - EXAMPLES} more, see the JSON file")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in plain types."""
        return {
            "version": AUDIT_VERSION,
            "data_sha256": self.data_sha256,
            **dataclasses.asdict(self),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Audit":
        """The inverse of `to_dict`.

        Raises:
            DataError: written by another version.
        """
        if values.get("version") != AUDIT_VERSION:
            raise DataError(f"audit version {values.get('version')} is not {AUDIT_VERSION}")
        return cls(
            source=values["source"],
            layout=values["layout"],
            fingerprint=values["fingerprint"],
            class_names=tuple(values["class_names"]),
            rows=tuple(AuditRow(**row) for row in values["rows"]),
            findings=tuple(
                Finding(**{**finding, "examples": tuple(finding["examples"])})
                for finding in values["findings"]
            ),
            notes=tuple(values["notes"]),
        )

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Writes everything to a JSON file, to the side first, then renamed."""
        path = Path(path)
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")
        return path

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Writes one line for each file, to the side first, then renamed."""
        text = io.StringIO()
        columns = [field.name for field in dataclasses.fields(AuditRow)]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in self.rows)
        path = Path(path)
        write_text(path, text.getvalue())
        return path


def read_audit(path: str | os.PathLike[str]) -> Audit:
    """Reads what `Audit.to_json` wrote.

    Raises:
        DataError: the file is missing, damaged or of another version.
    """
    try:
        return Audit.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the audit {path} cannot be read ({error}): build it again") from error


def audit_source(
    source: Source,
    *,
    progress: bool = True,
    workers: int | None = None,
    observe: Callable[[str, np.ndarray], None] | None = None,
) -> Audit:
    """Reads and decodes every file of a source once, in threads.

    Args:
        source: from `open_source`.
        progress: show a progress bar on standard error.
        workers: threads; one for each core when None.
        observe: called in a thread with file and pixels (H, W, 3) uint8 of each decoded image.

    Returns:
        The audit. It is not an error when files are dropped: see `Audit.table`.
    """
    rows: list[AuditRow] = []
    with progress_bar(len(source.files), "audit", enabled=progress) as bar:
        examined = ordered_map(
            lambda file: _examine(source, file, observe), source.files, workers=workers
        )
        for row in examined:
            rows.append(row)
            bar.update()
    rows = _mark_copies(rows)
    rows.extend(AuditRow(item.file, "", IGNORED, item.reason) for item in source.ignored)
    return Audit(
        source=str(source.path),
        layout=source.layout,
        fingerprint=source.fingerprint,
        class_names=source.class_names,
        rows=tuple(rows),
        findings=find_oddities(rows, source.class_names),
        notes=source.notes,
    )


def _examine(
    source: Source, file: SourceFile, observe: Callable[[str, np.ndarray], None] | None
) -> AuditRow:
    row = AuditRow(
        file=file.file,
        label=file.label,
        status=KEPT,
        prefix=_prefix(file.file),
        patient=file.patient or "",
        slide=file.slide or "",
        lab=file.lab or "",
        part=file.part or "",
        fold=file.fold or "",
    )
    try:
        data = source.read(file)
    except BadImageError as error:
        return dataclasses.replace(row, status=DROPPED, reason=str(error))
    row = dataclasses.replace(row, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    try:
        facts, pixels = inspect_and_decode(data)
    except BadImageError as error:
        return dataclasses.replace(row, status=DROPPED, reason=str(error))
    if observe is not None:
        observe(file.file, pixels)
    return dataclasses.replace(row, **dataclasses.asdict(facts))


def _prefix(file: str) -> str:
    """ "BNE" of "neutrophil/BNE_100878.jpg"; "" where no capitals come before an underscore."""
    head, underscore, _ = file.rpartition("/")[2].partition("_")
    return head if underscore and head.isalpha() and head.isupper() else ""


def _mark_copies(rows: Sequence[AuditRow]) -> list[AuditRow]:
    """Drops identical bytes under different labels; marks copies under the same label."""
    same: dict[str, list[AuditRow]] = collections.defaultdict(list)
    for row in rows:
        if row.status == KEPT:
            same[row.sha256].append(row)
    marked = []
    for row in rows:
        copies = same[row.sha256] if row.status == KEPT else [row]
        others = [copy for copy in copies if copy.label != row.label]
        if others:
            reason = f"label conflict: the same bytes as {others[0].file}"
            row = dataclasses.replace(row, status=DROPPED, reason=reason)
        if copies[0].file != row.file:
            row = dataclasses.replace(row, duplicate_of=copies[0].file)
        marked.append(row)
    return marked
