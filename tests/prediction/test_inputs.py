"""Folders, files, zips and lists give the same images."""

import unicodedata
import zipfile
from pathlib import Path

import pytest

from rcmnet_jax.errors import BadImageError, DataError
from rcmnet_jax.prediction.image_list import LARGEST_FILE, list_images


@pytest.fixture
def place(tmp_path) -> Path:
    """Two images and a text in a folder, the same in a zip, and lists of the images."""
    (tmp_path / "cells" / "b").mkdir(parents=True)
    for name, data in (("a.jpg", b"one"), ("b/no_ending", b"two"), ("notes.txt", b"x")):
        (tmp_path / "cells" / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "cells.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.jpg", "b/no_ending", "notes.txt"):
            archive.write(tmp_path / "cells" / name, name)
        archive.writestr("__MACOSX/._a.jpg", b"")
    return tmp_path


def contents(*paths) -> dict[str, bytes]:
    images = list_images(paths)
    return {name: images.read(name) for name in images.readers}


def test_a_folder_and_its_zip_are_the_same(place):
    assert contents(place / "cells") == {"a.jpg": b"one", "b/no_ending": b"two"}
    assert contents(place / "cells.zip") == contents(place / "cells")
    assert list_images([place / "cells"]).ignored == 1
    assert list_images([place / "cells.zip"]).ignored == 2


def test_several_paths_keep_their_names_apart(place):
    (place / "other").mkdir()
    (place / "other" / "a.jpg").write_bytes(b"three")
    found = contents(place / "cells" / "a.jpg", place / "other", place / "cells.zip")
    assert found == {
        f"{place}/cells/a.jpg": b"one",
        f"{place}/other/a.jpg": b"three",
        f"{place}/cells.zip/a.jpg": b"one",
        f"{place}/cells.zip/b/no_ending": b"two",
    }
    assert contents(place / "cells" / "a.jpg") == {"a.jpg": b"one"}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("file\ncells/a.jpg\n", "utf-8"),
        ("label;file\nx;cells\\a.jpg\n", "utf-16"),
        ("cells/a.jpg\n", "utf-8-sig"),
        ("sep=;\r\nlabel;file\r\nx;cells/a.jpg\r\n", "utf-16-le"),
        ("File\tpatient\ncells/a.jpg\t7\n\n", "utf-8"),
    ],
)
def test_lists_as_people_write_them(place, text, encoding):
    (place / "list.csv").write_bytes(text.encode(encoding))
    assert contents(place / "list.csv") == {"cells/a.jpg": b"one"}


def test_what_cannot_be_listed_or_read(place):
    with pytest.raises(DataError, match="does not exist"):
        list_images([place / "none"])
    (place / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        list_images([place / "empty"])
    (place / "list.csv").write_text("file\ncells/a.jpg\ncells/z.jpg\n")
    with pytest.raises(DataError, match=r"cells/z\.jpg, which does not exist .*1 of 2"):
        list_images([place / "list.csv"])
    with zipfile.ZipFile(place / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(LARGEST_FILE + 1))
    with pytest.raises(BadImageError, match="no single cell"):
        contents(place / "bomb.zip")
    images = list_images([place / "cells"])
    (place / "cells" / "a.jpg").unlink()
    with pytest.raises(BadImageError, match="cannot be read"):
        images.read("a.jpg")


@pytest.mark.parametrize("folder", ["@eaDir", "$RECYCLE.BIN", ".ipynb_checkpoints", "__MACOSX"])
def test_files_of_systems_are_passed_over_in_folders_and_zips_at_every_depth(place, folder):
    (place / "cells" / "b" / folder / "deep").mkdir(parents=True)
    for name in (f"b/{folder}/deep/a.jpg", f"b/{folder}/c.jpg", "b/Thumbs.db"):
        (place / "cells" / name).write_bytes(b"x")
    with zipfile.ZipFile(place / "all.zip", "w") as archive:
        for path in sorted((place / "cells").rglob("*")):
            archive.write(path, path.relative_to(place / "cells"))
    assert set(contents(place / "cells")) == {"a.jpg", "b/no_ending"}
    assert contents(place / "all.zip") == contents(place / "cells")


@pytest.mark.parametrize("of_list", ["NFC", "NFD"])
@pytest.mark.parametrize("of_file", ["NFC", "NFD"])
def test_a_list_names_files_in_either_form_of_unicode(place, of_list, of_file):
    (place / unicodedata.normalize(of_file, "Zelle ä.jpg")).write_bytes(b"one")
    (place / "list.txt").write_text(unicodedata.normalize(of_list, "Zelle ä.jpg"), "utf-8")
    assert list(contents(place / "list.txt").values()) == [b"one"]
