"""Finding and reading images: what is taken, what is named, what goes on."""

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import DataError
from rcmnet_jax.explain.images import Reference, choose, find_images, read_images
from rcmnet_jax.prediction.image_list import list_images

SIZE = Preprocess(16, 16)


@pytest.fixture
def folder(tmp_path):
    """Two classes and odd company."""
    rng = np.random.default_rng(0)
    for name, count in (("ig", 3), ("other", 1)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.PNG")
    (tmp_path / "set" / "ig" / ".DS_1.jpg").write_bytes(b"x")
    (tmp_path / "set" / "ig" / "notes.txt").write_text("x")
    (tmp_path / "set" / "ig" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "set" / "other" / "empty.png").write_bytes(b"")
    return tmp_path / "set"


def test_folders_are_searched_and_classes_are_their_names(folder):
    found = find_images([folder], ("ig", "monocyte"))
    names = [reference.file.removeprefix(f"{folder}/") for reference in found]
    assert names == ["ig/0.PNG", "ig/1.PNG", "ig/2.PNG", "ig/broken.jpg", "other/0.PNG",
                     "other/empty.png"]  # fmt: skip
    assert [r.true_class for r in found] == ["ig"] * 4 + [None] * 2


def test_a_named_file_is_taken_whatever_it_is_called_and_once(folder):
    file = folder / "ig" / ".DS_1.jpg"
    assert [r.file for r in find_images([file, file], ())] == [str(file)]


def test_unreadable_files_are_named_and_the_rest_goes_on(folder):
    references = find_images([folder], ("ig",))
    (folder / "ig" / "1.PNG").unlink()
    read = read_images(references, SIZE)
    assert [image.file for image in read.images] == [
        str(folder / name) for name in ("ig/0.PNG", "ig/2.PNG", "other/0.PNG")
    ]
    assert read.images[0].size == (24, 20)
    assert read.images[0].pixels(SIZE).shape == (16, 16, 3)
    reasons = {file.rsplit("/", 1)[-1]: reason for file, reason in read.unreadable}
    assert set(reasons) == {"1.PNG", "broken.jpg", "empty.png"}
    assert "No such file" in reasons["1.PNG"]
    assert "empty" in reasons["empty.png"]


def test_nothing_that_can_be_read(folder, tmp_path):
    with pytest.raises(DataError, match=r"none of 1 images can be read; the first, .*broken\.jpg"):
        read_images(find_images([folder / "ig" / "broken.jpg"], ()), SIZE)
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_images([tmp_path / "nowhere"], ())
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no image in"):
        find_images([tmp_path / "void"], ())


def test_a_folder_has_the_images_that_prediction_finds_in_it(folder):
    (folder / "ig" / "no_ending").write_bytes((folder / "ig" / "0.PNG").read_bytes())
    (folder / "ig" / "@eaDir").mkdir()
    (folder / "ig" / "@eaDir" / "thumb.jpg").write_bytes(b"x")
    found = [reference.file.removeprefix(f"{folder}/") for reference in find_images([folder], ())]
    assert found == sorted(list_images([folder]).readers)
    assert "ig/no_ending" in found
    read = read_images(find_images([folder], ()), SIZE)
    assert str(folder / "ig" / "no_ending") in [image.file for image in read.images]


def of_class(name, count):
    return [Reference(f"{name}/{i}", name, bytes) for i in range(count)]


def test_a_limit_takes_the_classes_evenly_and_the_same_ones_each_time():
    references = of_class("many", 50) + of_class("few", 3) + of_class("some", 20)
    chosen = choose(references, 15)
    counts = {name: sum(r.true_class == name for r in chosen) for name in ("many", "few", "some")}
    assert counts == {"many": 6, "few": 3, "some": 6}
    assert chosen == choose(references, 15)
    assert chosen != choose(references, 15, seed=1)
    # Still in the order of the files.
    assert chosen == [r for r in references if r in chosen]


@pytest.mark.parametrize("limit", [0, 73, 100])
def test_no_limit(limit):
    references = of_class("a", 73)
    assert choose(references, limit) == references
