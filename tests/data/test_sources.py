"""Sources: folders, zips and manifests, and all the ways in which they can be wrong."""

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rcmnet_jax.data.sources import open_source
from rcmnet_jax.errors import BadImageError, DataError


def zip_folder(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def test_folder_is_sorted_and_read(class_folder):
    root = class_folder({"b": 2, "a": 3})
    source = open_source(root)
    assert source.layout == "folder"
    assert source.class_names == ("a", "b")
    assert [file.file for file in source.files][:2] == ["a/a_000.jpg", "a/a_001.jpg"]
    assert [file.label for file in source.files] == ["a"] * 3 + ["b"] * 2
    assert source.read(source.files[0]) == (root / "a/a_000.jpg").read_bytes()


def test_wrapper_zip_and_plain_folder_give_the_same_names(class_folder, tmp_path):
    root = class_folder({"a": 2, "b": 2}, "outer/PBC_dataset_normal_DIB")
    plain = open_source(root)
    wrapped = open_source(tmp_path / "outer")
    zipped = open_source(zip_folder(tmp_path / "outer", tmp_path / "pbc.zip"))
    assert plain.files == wrapped.files == zipped.files
    assert zipped.layout == "zip"
    for file in plain.files:
        assert plain.read(file) == wrapped.read(file) == zipped.read(file)


def test_nothing_is_skipped_silently(class_folder):
    root = class_folder({"a": 2, "b": 2})
    (root / "a" / ".DS_Store").write_bytes(b"junk")
    (root / "README").write_text("hello")
    (root / "__MACOSX" / "a").mkdir(parents=True)
    (root / "__MACOSX" / "a" / "._a_000.jpg").write_bytes(b"junk")
    (root / "b" / "gone.jpg").symlink_to(root / "nowhere")
    source = open_source(root)
    assert source.class_names == ("a", "b")
    ignored = {item.file: item.reason for item in source.ignored}
    assert set(ignored) == {"README", "__MACOSX/", "b/gone.jpg", "a/.DS_Store"}
    assert "1 file" in ignored["__MACOSX/"]


def test_class_folders_may_be_nested_and_linked(class_folder, tmp_path):
    root = class_folder({"a": 1, "b": 1})
    elsewhere = class_folder({"x": 2, "y": 1}, "elsewhere")
    (root / "a" / "slide1").symlink_to(elsewhere / "x")
    (root / "b" / "loop").symlink_to(root)
    source = open_source(root)
    assert [file.file for file in source.files if file.label == "a"] == [
        "a/a_000.jpg",
        "a/slide1/x_000.jpg",
        "a/slide1/x_001.jpg",
    ]
    assert [item.file for item in source.ignored] == ["b/loop"]


def test_fingerprint_follows_names_sizes_and_times(class_folder):
    root = class_folder({"a": 2, "b": 2})
    before = open_source(root).fingerprint
    assert open_source(root).fingerprint == before
    os.utime(root / "a/a_000.jpg", ns=(1, 1))
    touched = open_source(root).fingerprint
    (root / "a/a_000.jpg").rename(root / "b/a_000.jpg")
    moved = open_source(root).fingerprint
    assert len({before, touched, moved}) == 3


@pytest.mark.parametrize(
    ("classes", "message"),
    [({"a": 2}, "no class folders"), ({"a": 2, "b": 0}, "'b'.*is empty"), ({}, "no class folders")],
)
def test_folder_without_two_filled_classes(class_folder, tmp_path, classes, message):
    root = class_folder(classes) if classes else tmp_path
    path = root / "a" if list(classes) == ["a"] else root
    with pytest.raises(DataError, match=message) as error:
        open_source(path)
    assert "\n" not in str(error.value)


def test_one_class_only(class_folder):
    with pytest.raises(DataError, match=r"one class only \('a'\)"):
        open_source(class_folder({"a": 2}))


def test_missing_path_and_unknown_kind(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match="neither a folder, a zip nor a CSV"):
        open_source(tmp_path / "model.bin")
    with pytest.raises(DataError, match="unknown layout"):
        open_source(tmp_path, layout="tar")  # type: ignore[arg-type]


def test_unreadable_file_is_a_bad_image(class_folder):
    source = open_source(class_folder({"a": 1, "b": 1}))
    (source.path / "a/a_000.jpg").unlink()
    with pytest.raises(BadImageError, match="cannot be read"):
        source.read(source.files[0])


def test_zip_reads_from_threads(class_folder, tmp_path):
    root = class_folder({"a": 20, "b": 20})
    source = open_source(zip_folder(root, tmp_path / "x.zip"))
    with ThreadPoolExecutor(8) as pool:
        data = list(pool.map(source.read, source.files * 5))
    assert data[:40] == [(root / file.file).read_bytes() for file in source.files]
    assert data[40:80] == data[:40]


def _zip_with(tmp_path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], **kw) -> Path:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w", **kw) as archive:
        for name in ("a/1.jpg", "b/1.jpg"):
            archive.writestr(name, b"x")
        for info, data in entries:
            archive.writestr(info, data)
    return path


def _link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a/link.jpg")
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("/etc/passwd", "absolute"),
        ("a/../../evil.jpg", r"\.\. in its path"),
        ("C:/evil.jpg", "absolute"),
        (_link(), "symbolic link"),
    ],
)
def test_zip_entries_that_leave_are_refused(tmp_path, entry, message):
    with pytest.raises(DataError, match=message):
        open_source(_zip_with(tmp_path, (entry, b"x")))


def test_zip_bombs_are_refused(tmp_path):
    bomb = _zip_with(tmp_path, ("a/2.jpg", bytes(2**22)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="zip bomb"):
        open_source(bomb)


def test_encrypted_zip_is_refused(tmp_path):
    path = _zip_with(tmp_path)
    data = bytearray(path.read_bytes())
    # Bit 0 of the flags in the first entry of the central directory.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        open_source(path)


def test_damaged_zips(class_folder, tmp_path):
    path = zip_folder(class_folder({"a": 2, "b": 2}), tmp_path / "x.zip")
    data = path.read_bytes()
    damaged = bytearray(data)
    damaged[len(open_source(path).files[0].file) + 100] ^= 0xFF
    path.write_bytes(damaged)
    source = open_source(path)
    with pytest.raises(BadImageError, match="cannot be read"):
        source.read(source.files[0])
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a readable zip"):
        open_source(path, layout="zip")


def write_manifest(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "cells.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_manifest(class_folder, delimiter, encoding):
    root = class_folder({"a": 2, "b": 2})
    rows = ["File,Label,patient,stain", "a/a_000.jpg,x,p1,MGG", "", "b\\b_001.jpg,y,,MGG"]
    text = "\r\n".join(row.replace(",", delimiter) for row in rows)
    source = open_source(write_manifest(root, text, encoding))
    assert source.layout == "manifest"
    assert source.class_names == ("x", "y")
    assert [(f.file, f.label, f.patient, f.slide) for f in source.files] == [
        ("a/a_000.jpg", "x", "p1", None),
        ("b/b_001.jpg", "y", None, None),
    ]
    assert source.notes == ("columns not used: stain",)
    assert source.read(source.files[1]) == (root / "b/b_001.jpg").read_bytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("name,label\na/a_000.jpg,x", "lacks the column file"),
        ("", "lacks the column file and label"),
        ("file,label,label\na/a_000.jpg,x,y", "column label twice"),
        ("file,label\n", "has no rows"),
        ("file,label\na/a_000.jpg,", "row 2 has no label"),
        ("file,label\n,x", "row 2 has no file"),
        ("file,label\na/a_000.jpg,x\na/a_000.jpg,x", "row 3 repeats a/a_000.jpg of row 2"),
        ("file,label\na/a_000.jpg,x\n../out.jpg,y", "row 3: .* leaves the folder"),
        ("file,label\n/etc/passwd,x", "row 2: /etc/passwd is an absolute path"),
        ("file,label\nC:\\cell.jpg,x", "row 2: .* absolute path"),
        ("file,label\nescape/secret.jpg,x", "row 2: .* link out of"),
        ("file,label\na/none.jpg,x", "row 2: a/none.jpg does not exist"),
        ("file,label\na,x", "row 2: a does not exist"),
        ("file,label\na/a_000.jpg,x,y", "row 2 has 3 fields"),
        ('file,label\n"a/a_000.jpg,x', "row 2: unexpected end"),
        ("file,label\na/a_000.jpg,x", "one class only"),
    ],
)
def test_wrong_manifests(class_folder, tmp_path, rows, message):
    root = class_folder({"a": 1, "b": 1})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.jpg").write_bytes(b"x")
    (root / "escape").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match=message) as error:
        open_source(write_manifest(root, rows))
    assert "\n" not in str(error.value)


def test_manifest_must_be_utf8(class_folder):
    root = class_folder({"a": 1, "b": 1})
    with pytest.raises(DataError, match="save it as 'CSV UTF-8'"):
        open_source(write_manifest(root, "file,label\nä.jpg,x", "latin-1"))


def test_manifest_fingerprint_follows_the_labels(class_folder):
    root = class_folder({"a": 1, "b": 1})
    one = open_source(write_manifest(root, "file,label\na/a_000.jpg,x\nb/b_000.jpg,y"))
    two = open_source(write_manifest(root, "file,label\na/a_000.jpg,y\nb/b_000.jpg,x"))
    assert one.fingerprint != two.fingerprint


def test_empty_zip(tmp_path):
    data = io.BytesIO()
    zipfile.ZipFile(data, "w").close()
    (tmp_path / "empty.zip").write_bytes(data.getvalue())
    with pytest.raises(DataError, match="no class folders"):
        open_source(tmp_path / "empty.zip")


def test_zip_in_a_zip(class_folder, tmp_path):
    inner = zip_folder(class_folder({"a": 1, "b": 1}), tmp_path / "PBC.zip")
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.write(inner, "PBC.zip")
    with pytest.raises(DataError, match=r"give PBC\.zip, the zip in it"):
        open_source(tmp_path / "download.zip")


def test_odd_names(class_folder, encode):
    root = class_folder({"a": 1, "b": 1})
    (root / "a" / "Zelle \u202fä ü.jpg").write_bytes(encode(5))
    (root / "a" / "two\nlines.jpg").write_bytes(encode(6))
    Path(os.fsdecode(os.fsencode(root / "a") + b"/\xff.jpg")).write_bytes(encode(7))
    source = open_source(root)
    assert [file.file for file in source.files if file.label == "a"] == [
        "a/Zelle \u202fä ü.jpg",
        "a/a_000.jpg",
    ]
    assert [item.file for item in source.ignored] == [r"'a/\udcff.jpg'", r"'a/two\nlines.jpg'"]
