"""The whole audit: what building finds, near-duplicates, shortcuts, and a verdict on each."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rcmnet_jax.data.audit.examine import EXAMPLES, Audit, audit_source
from rcmnet_jax.data.audit.findings import Finding
from rcmnet_jax.data.audit.near_duplicates import THRESHOLD, NearPair, clusters, near_duplicates
from rcmnet_jax.data.audit.probes import Probe, run_probes
from rcmnet_jax.data.audit.verdicts import verdict_of, verdict_of_probe, worst
from rcmnet_jax.data.records import AuditRow, Records
from rcmnet_jax.data.sources import Source
from rcmnet_jax.data.splits import read_split_csv
from rcmnet_jax.errors import DataError
from rcmnet_jax.files import write_text

THUMB = 32


@dataclasses.dataclass(frozen=True)
class ThoroughAudit:
    """An audit with near-duplicates and shortcuts, which take pixels to find.

    Attributes:
        audit: what building the data set finds.
        findings: its findings, and those on near-duplicates.
        probes: tests for shortcuts; empty where a class has fewer than ten images.
        split: what "across parts" refers to.
        threshold: similarity from which images count as near-duplicates.
    """

    audit: Audit
    findings: tuple[Finding, ...]
    probes: tuple[Probe, ...]
    split: str
    threshold: float

    @property
    def verdict(self) -> str:
        """fine, look or act: the most serious of all."""
        levels = [verdict_of(finding)[0] for finding in self.findings]
        return worst([*levels, *(verdict_of_probe(probe)[0] for probe in self.probes)])

    def table(self) -> str:
        """Plain text: counts by class, then each finding with examples and its verdict."""
        lines = [self.audit.counts_table(), "", f"parts: {self.split}", ""]
        if not self.findings:
            lines.append("no findings")
        for finding in self.findings:
            level, advice = verdict_of(finding)
            lines += [f"- {finding.message} [{finding.count}]", f"  {level}: {advice}"]
            lines += [f"    {example}" for example in finding.examples[:EXAMPLES]]
            if len(finding.examples) > EXAMPLES:
                lines.append(f"    and {len(finding.examples) - EXAMPLES} more, see the JSON file")
        lines += ["", "shortcuts (a small cross-validated logistic model, 99 % intervals):"]
        if not self.probes:
            lines.append("- not tested: a class has fewer than ten images")
        for probe in self.probes:
            level, advice = verdict_of_probe(probe)
            lines.append(f"- {level}: {advice}")
        return "\n".join([*lines, "", f"verdict: {self.verdict}"])

    def to_dict(self) -> dict[str, Any]:
        """Everything, in plain types."""
        return {
            **self.audit.to_dict(),
            "findings": [
                {
                    **dataclasses.asdict(finding),
                    **dict(zip(("level", "verdict"), verdict_of(finding), strict=True)),
                }
                for finding in self.findings
            ],
            "probes": [
                {
                    **probe.to_dict(),
                    **dict(zip(("level", "verdict"), verdict_of_probe(probe), strict=True)),
                }
                for probe in self.probes
            ],
            "parts": self.split,
            "near_duplicate_threshold": self.threshold,
            "verdict": self.verdict,
        }

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Writes everything to a JSON file, whole or not at all."""
        path = Path(path)
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")
        return path


def audit_thoroughly(
    source: Source,
    *,
    split_csv: str | os.PathLike[str] | None = None,
    threshold: float = THRESHOLD,
    progress: bool = True,
    workers: int | None = None,
) -> ThoroughAudit:
    """Audits a source, its near-duplicates and its shortcuts, in one reading of the files.

    Args:
        source: from `open_source`.
        split_csv: the split whose parts must not share pictures; the default split (strict, seed
            0, by patient or slide where the manifest knows them) when None.
        threshold: similarity from which images count as near-duplicates.
        progress: show a progress bar on standard error.
        workers: threads; one for each core when None.

    Raises:
        DataError: the split is not one of these images, or a threshold out of range.
    """
    if not 0 < threshold <= 1:
        raise DataError(f"the near-duplicate threshold is a similarity in (0, 1], not {threshold}")
    thumbs: dict[str, np.ndarray] = {}

    def keep_thumbnail(file: str, pixels: np.ndarray) -> None:
        thumbs[file] = thumbnail(pixels)

    audit = audit_source(source, progress=progress, workers=workers, observe=keep_thumbnail)
    # Conflicts are dropped, but their pictures are compared with the rest all the same.
    rows = [row for row in audit.rows if row.file in thumbs]
    small = np.array([thumbs[row.file] for row in rows], np.uint8).reshape(-1, THUMB, THUMB, 3)
    kept = [row for row in rows if row.status == "kept"]
    part_of, parts = _parts(kept, audit.class_names, split_csv)
    return examine_thumbnails(audit, rows, small, part_of, parts, threshold=threshold)


def examine_thumbnails(
    audit: Audit,
    rows: Sequence[AuditRow],
    small_NxSxSx3: np.ndarray,
    part_of: Mapping[str, str],
    parts: str,
    *,
    threshold: float = THRESHOLD,
) -> ThoroughAudit:
    """Looks for near-duplicates and shortcuts in small versions of audited images.

    Args:
        audit: of the images.
        rows: its rows of which there are small versions.
        small_NxSxSx3: uint8, `THUMB` a side.
        part_of: part of the split of each file; files may be missing.
        parts: which split that is, in words.
        threshold: similarity from which images count as near-duplicates.
    """
    pairs = near_duplicates(small_NxSxSx3, threshold=threshold)
    kept = [i for i, row in enumerate(rows) if row.status == "kept"]
    number = {name: k for k, name in enumerate(audit.class_names)}
    probes = run_probes(
        [rows[i] for i in kept],
        small_NxSxSx3[kept],
        np.array([number[rows[i].label] for i in kept], int),
        len(audit.class_names),
        groups_N=clusters(len(rows), pairs)[kept],
    )
    findings = (*_near_findings(rows, pairs, part_of), *audit.findings)
    return ThoroughAudit(audit, findings, probes, parts, threshold)


def thumbnail(pixels_HxWx3: np.ndarray) -> np.ndarray:
    """An image made small enough to compare thousands: uint8, `THUMB` a side."""
    image = Image.fromarray(pixels_HxWx3)
    return np.asarray(image.resize((THUMB, THUMB), Image.Resampling.BOX))


def _parts(
    kept: Sequence[AuditRow], class_names: tuple[str, ...], split_csv
) -> tuple[dict[str, str], str]:
    """The part of each file, and in words which split that is."""
    records = Records.from_rows(kept, class_names)
    columns = records.split_columns(class_names)
    if split_csv is not None:
        split = read_split_csv(split_csv, **columns)
        shown = f"those of {split_csv}"
    else:
        try:
            split = records.split(class_names)
        except DataError as error:
            return {}, f"none, as these images cannot be split ({error})"
        kind = "given split (" if split.protocol == "given" else "default split (strict, seed 0, "
        shown = f"the {kind}by {split.level}); give --split for another"
    return dict(zip(split.files.tolist(), split.part, strict=True)), shown


def _near_findings(
    rows: Sequence[AuditRow], pairs: Sequence[NearPair], part_of: Mapping[str, str]
) -> list[Finding]:
    """Near-duplicates that are not byte-identical: leaks, conflicts and the harmless."""
    found: dict[str, list[str]] = {"near-leak": [], "near-conflict": [], "near-duplicate": []}
    for pair in pairs:
        a, b = rows[pair.first], rows[pair.second]
        if a.sha256 == b.sha256:
            continue  # reported as copies or conflicts already
        parts = [part_of.get(row.file, "") for row in (a, b)]
        where = f" ({parts[0]}, {parts[1]})" if all(parts) else ""
        text = f"{a.file} ~ {b.file}{where}: {pair.similarity:.3f}, {pair.view}"
        apart = parts[0] != parts[1] and all(part in ("train", "val", "test") for part in parts)
        if a.label != b.label:
            found["near-conflict"].append(text)
        if apart:
            found["near-leak"].append(text)
        elif a.label == b.label:
            found["near-duplicate"].append(text)
    messages = {
        "near-leak": "near-identical pictures in different parts of the split",
        "near-conflict": "near-identical pictures under different labels",
        "near-duplicate": "near-identical pictures of one class in one part (or not split)",
    }
    return [
        Finding(kind, messages[kind], len(texts), tuple(texts))
        for kind, texts in found.items()
        if texts
    ]
