"""Planted leaks and shortcuts in real images are found, every one, and clean images stay clean."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from rcmnet_jax.data.audit import audit_thoroughly
from rcmnet_jax.data.audit.near_duplicates import clusters, luminance_grid, near_duplicates
from rcmnet_jax.data.audit.probes import PROBES
from rcmnet_jax.data.audit.verdicts import verdict_of, verdict_of_probe
from rcmnet_jax.data.sources import open_source
from rcmnet_jax.errors import DataError
from tests.data.planted import (
    CLASSES,
    COPIES,
    SHORTCUTS,
    copy_part,
    plant_copies,
    plant_relabelled,
    plant_shortcut,
)


@pytest.fixture(scope="module")
def clean(shared, tmp_path_factory) -> Path:
    """160 real images of four classes."""
    return copy_part(shared / "pbc", tmp_path_factory.mktemp("clean") / "cells")


def audit(folder, **options):
    return audit_thoroughly(open_source(folder), progress=False, workers=2, **options)


def found(result, kind: str) -> tuple[str, ...]:
    return next((f.examples for f in result.findings if f.kind == kind), ())


def test_real_look_alikes_are_no_near_duplicates(clean):
    result = audit(clean)
    kinds = {finding.kind for finding in result.findings}
    assert not kinds & {"near-leak", "near-conflict", "near-duplicate", "duplicate", "conflict"}


def test_every_planted_leak_is_found(shared, tmp_path, capsys):
    root = copy_part(shared / "pbc", tmp_path / "cells")
    identical = (root / "basophil" / "zz_same.jpg", root / "eosinophil" / "zz_other.jpg")
    sources = [sorted((root / name).glob("[A-Z]*.jpg"))[30] for name in CLASSES[:2]]
    identical[0].write_bytes(sources[0].read_bytes())
    identical[1].write_bytes(sources[0].with_name(sources[0].name).read_bytes())
    same_class = root / "lymphocyte" / "zz_copy.jpg"
    same_class.write_bytes(sorted((root / "lymphocyte").glob("[A-Z]*.jpg"))[30].read_bytes())
    (root / "basophil" / "zz_junk.jpg").write_bytes(b"no image at all")
    (root / "basophil" / "zz_cut.jpg").write_bytes(sources[0].read_bytes()[:4000])
    planted = plant_copies(root)
    relabelled = plant_relabelled(root)
    split = write_split(tmp_path / "split.csv", root, dropped={"zz_junk", "zz_cut"})
    result = audit(root, split_csv=split)

    leaks, conflicts = found(result, "near-leak"), found(result, "near-conflict")
    table = {kind: sum(told(pair, leaks) for pair in pairs) for kind, pairs in planted.items()}
    expected = {kind: len(pairs) for kind, pairs in planted.items()}
    with capsys.disabled():
        for kind, count in table.items():
            print(f"\n  {kind}: {count}/{expected[kind]}", end="")
    assert table == expected
    assert set(table) == set(COPIES)
    assert all(told(pair, conflicts) for pair in relabelled)
    assert len(conflicts) == len(relabelled)
    assert len(found(result, "unusable")) == 2
    (conflict,) = found(result, "conflict")
    assert "zz_same" in conflict
    assert "zz_other" in conflict
    assert any("zz_copy" in text for text in found(result, "duplicate"))
    # Nothing that was not planted: 40 copies, 4 of them with another label.
    assert len(leaks) == sum(expected.values()) + len(relabelled)
    assert result.verdict == "act"


def told(pair: tuple[str, str], examples: tuple[str, ...]) -> bool:
    return any(pair[0] in text and pair[1] in text for text in examples)


def write_split(path: Path, root: Path, dropped: set[str]) -> Path:
    """Originals train, copies test; identical files are not parted, or it is no split."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "part", "reason", "group"])
        for file in sorted(root.rglob("*.*g")):
            if file.stem in dropped or file.stem in ("zz_same", "zz_other"):
                continue
            if file.read_bytes() == (root / "basophil" / "zz_same.jpg").read_bytes():
                continue
            part = "test" if file.stem.startswith(("copy_", "relabelled_")) else "train"
            writer.writerow([file.relative_to(root), file.parent.name, part, "", ""])
    return path


@pytest.mark.parametrize("probe", SHORTCUTS)
def test_a_planted_shortcut_is_seen_by_its_probe(clean, tmp_path, probe):
    result = audit(plant_shortcut(clean, tmp_path / "cells", probe))
    seen = {p.name: p for p in result.probes}
    assert seen.keys() == PROBES.keys()
    assert seen[probe].strength == "strong", seen[probe]
    level, line = verdict_of_probe(seen[probe])
    assert level == ("look" if probe in ("name", "mean colour") else "act")
    assert f"{100 * seen[probe].balanced_accuracy:.1f} %" in line
    if probe in ("size", "name", "number"):
        # What leaves the pixels alone is seen by no other probe.
        others = {p.name for p in result.probes if p.strength == "strong"}
        assert others <= {probe, "file size"}


def test_without_a_shortcut_no_probe_sees_one(clean, tmp_path):
    result = audit(plant_shortcut(clean, tmp_path / "cells", None))
    assert [p for p in result.probes if p.strength in ("noticeable", "strong")] == []


def test_the_json_holds_what_the_table_tells(clean, tmp_path):
    result = audit(clean)
    values = json.loads(result.to_json(tmp_path / "audit.json").read_text())
    assert values["verdict"] == result.verdict
    assert [p["name"] for p in values["probes"]] == list(PROBES)
    for finding in result.findings:
        assert verdict_of(finding)[1] in result.table()


def test_a_few_images_are_audited_without_probes(class_folder):
    result = audit(class_folder({"a": 4, "b": 4}))
    assert result.probes == ()
    assert "not tested" in result.table()


def test_a_threshold_that_is_no_similarity(class_folder):
    with pytest.raises(DataError, match="similarity in"):
        audit(class_folder({"a": 3, "b": 3}), threshold=1.5)


def test_flat_images_are_like_nothing():
    flat = np.full((3, 32, 32, 3), 200, np.uint8)
    assert not np.any(luminance_grid(flat))
    assert near_duplicates(flat) == []


def test_clusters_follow_chains():
    rng = np.random.default_rng(0)
    thumbs = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    thumbs[4], thumbs[5] = thumbs[1][::-1], thumbs[1].swapaxes(0, 1)
    pairs = near_duplicates(thumbs)
    assert {(p.first, p.second) for p in pairs} == {(1, 4), (1, 5), (4, 5)}
    assert {p.view for p in pairs if p.first == 1} == {"mirrored top to bottom", "transposed"}
    assert clusters(6, pairs).tolist() == [0, 1, 2, 3, 1, 1]


@pytest.mark.slow
def test_the_known_dirt_of_pbc_and_one_unknown_pair(shared):
    result = audit(shared / "pbc")
    counts = {finding.kind: finding.count for finding in result.findings}
    assert counts["duplicate"] == 16
    assert counts["conflict"] == counts["unusable"] == 1
    near = [e for kind in ("near-leak", "near-duplicate") for e in found(result, kind)]
    assert len(near) == 1
    assert "MO_231316.jpg ~ monocyte/MO_415531.jpg" in near[0]
    assert "near-conflict" not in counts
    strength = {p.name: p.strength for p in result.probes}
    assert strength["size"] == "weak"
    assert strength["name"] == "strong"
    assert strength["number"] == "nothing"
