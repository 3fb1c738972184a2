"""The audit: every kind of dirt is found, named and written down."""

import csv
import dataclasses
import json

import pytest
from PIL import Image

from rcmnet_jax.data.audit import audit_source, read_audit
from rcmnet_jax.data.sources import open_source
from rcmnet_jax.errors import DataError


@pytest.fixture
def dirty(class_folder, encode):
    """Two classes with one of everything."""
    root = class_folder({"a": 12, "b": 12})
    (root / "a" / ".DS_1.jpg").write_bytes(b"junk")
    (root / "a" / "cut.jpg").write_bytes((root / "a/a_000.jpg").read_bytes()[:300])
    (root / "a" / "empty.jpg").write_bytes(b"")
    (root / "b" / "copy.jpg").write_bytes((root / "b/b_000.jpg").read_bytes())
    (root / "a" / "both.jpg").write_bytes(encode(77))
    (root / "b" / "both.jpg").write_bytes(encode(77))
    (root / "a" / "grey.png").write_bytes(encode(78, mode="L", format="PNG"))
    for i in range(10):
        (root / "b" / f"wide_{i}.jpg").write_bytes(encode(80 + i, width=30))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 20), (9, 9, 9)).save(root / "a" / "turned.jpg", exif=exif)
    (root / "notes.txt").write_text("hello")
    return root


def test_dirt_is_found(dirty):
    audit = audit_source(open_source(dirty), progress=False, workers=3)
    rows = {row.file: row for row in audit.rows}
    assert [row.file for row in audit.kept] == sorted(row.file for row in audit.kept)
    dropped = {file: row.reason for file, row in rows.items() if row.status == "dropped"}
    assert set(dropped) == {"a/cut.jpg", "a/empty.jpg", "a/both.jpg", "b/both.jpg"}
    assert rows["a/.DS_1.jpg"].reason == "a system or hidden file"
    assert "damaged or incomplete" in dropped["a/cut.jpg"]
    assert "empty" in dropped["a/empty.jpg"]
    assert dropped["a/both.jpg"] == "label conflict: the same bytes as b/both.jpg"
    assert dropped["b/both.jpg"] == "label conflict: the same bytes as a/both.jpg"
    assert rows["b/copy.jpg"].status == "kept"
    assert rows["b/copy.jpg"].duplicate_of == "b/b_000.jpg"
    assert rows["notes.txt"].status == "ignored"
    assert rows["a/grey.png"].mode == "L"
    assert (rows["a/turned.jpg"].width, rows["a/turned.jpg"].height) == (20, 24)
    counts = {finding.kind: finding.count for finding in audit.findings}
    assert counts == {
        "unusable": 2,
        "conflict": 1,
        "duplicate": 1,
        "size": 10,
        "size-by-class": 1,
        "mode": 1,
        "orientation": 1,
        "format": 2,
        "ignored": 2,
    }


def test_table_tells_it(dirty):
    table = audit_source(open_source(dirty), progress=False).table()
    for text in (
        "total      37        4",
        "a/both.jpg = b/both.jpg",
        "b/copy.jpg = b/b_000.jpg",
        "the strict split drops them",
        "30x24: b 10; none in a",
        "a size-aware model could cheat",
        "notes.txt: beside the class folders",
    ):
        assert text in table
    many = audit_source(open_source(dirty), progress=False)
    assert max(len(line) for line in many.table().splitlines()) < 250


def test_clean_set_has_no_findings(class_folder):
    audit = audit_source(open_source(class_folder({"a": 3, "b": 3})), progress=False)
    assert audit.findings == ()
    assert "no findings" in audit.table()
    noted = dataclasses.replace(audit, notes=("columns not used: date",))
    assert noted.table().endswith("- columns not used: date\n\nno findings")


def test_prefixes_of_pbc(class_folder, encode):
    root = class_folder({"neutrophil": 1, "eosinophil": 1})
    for i, name in enumerate(["neutrophil/BNE_1", "neutrophil/SNE_2", "neutrophil/EO_3"]):
        (root / f"{name}.jpg").write_bytes(encode(50 + i))
    audit = audit_source(open_source(root), progress=False)
    findings = {finding.kind: finding for finding in audit.findings}
    assert findings["prefix"].examples == ("neutrophil/EO_3.jpg: EO means eosinophil",)
    assert findings["sub-labels"].examples == ("neutrophil: BNE 1, EO 1, SNE 1",)


def test_files_are_written_and_read_back(dirty, tmp_path):
    audit = audit_source(open_source(dirty), progress=False)
    assert read_audit(audit.to_json(tmp_path / "out" / "audit.json")) == audit
    rows = list(csv.DictReader(audit.to_csv(tmp_path / "audit.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [row.file for row in audit.rows]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["audit.json"]
    values = json.loads((tmp_path / "out" / "audit.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps({**values, "version": 0}))
    with pytest.raises(DataError, match="audit version 0"):
        read_audit(tmp_path / "old.json")
    for text in ("{", "[]", '"audit"', '{"version": 1, "rows": [1]}'):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(DataError, match="build it again"):
            read_audit(tmp_path / "broken.json")


def test_data_hash_follows_content_not_place(class_folder, tmp_path):
    one = audit_source(open_source(class_folder({"a": 2, "b": 2}, "one")), progress=False)
    root = class_folder({"a": 2, "b": 2}, "two")
    two = audit_source(open_source(root), progress=False)
    assert one.data_sha256 == two.data_sha256
    (root / "a/a_000.jpg").write_bytes((root / "b/b_000.jpg").read_bytes() + b"\0")
    assert audit_source(open_source(root), progress=False).data_sha256 != two.data_sha256


def test_groups_come_from_the_manifest(class_folder):
    root = class_folder({"a": 1, "b": 1})
    text = "file,label,patient,slide,lab,note\na/a_000.jpg,x,p1,s1,l1,n\nb/b_000.jpg,y,p2,,,n\n"
    (root / "m.csv").write_text(text)
    audit = audit_source(open_source(root / "m.csv"), progress=False)
    assert [(row.patient, row.slide, row.lab) for row in audit.rows] == [
        ("p1", "s1", "l1"),
        ("p2", "", ""),
    ]
    assert "columns not used: note" in audit.table()


def test_real_dirt(pbc_part):
    audit = audit_source(open_source(pbc_part), progress=False)
    counts = {finding.kind: finding.count for finding in audit.findings}
    assert counts["ignored"] == counts["conflict"] == counts["duplicate"] == 1
    assert "prefix" not in counts


@pytest.mark.slow
def test_whole_pbc(shared):
    audit = audit_source(open_source(shared / "pbc"), progress=False)
    findings = {finding.kind: finding for finding in audit.findings}
    assert len(audit.kept) == 9750
    assert findings["ignored"].count == 1
    assert "neutrophil/.DS_169665.jpg" in findings["ignored"].examples[0]
    # 17 pairs: 16 under one label, one under two.
    assert findings["duplicate"].count == 16
    assert findings["conflict"].examples == (
        "eosinophil/EO_225902.jpg = neutrophil/BNE_191112.jpg",
    )
    assert findings["size"].count == 290
    assert [text[:13] for text in findings["size"].examples[:2]] == [
        "366x369 (183)",
        "360x360 (105)",
    ]
    assert findings["size-by-class"].count == 2
    assert "prefix" not in findings
    assert audit.data_sha256.startswith("8a94f610")
