"""Folders of images as people have them, on disk: levels above classes, clutter, links, odd names.

Some follow a layout, with the outcome known beforehand; others put folders and files anywhere.
"""

import contextlib
import dataclasses
import os
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from hypothesis import strategies as st

from rcmnet_jax.data.dataset import prepare_dataset
from rcmnet_jax.data.sources import Source, open_source
from rcmnet_jax.errors import DataError
from tests.fuzz import inputs

# What systems and programs leave behind, spelled out here rather than taken from the package.
_CLUTTER = (
    *("@eaDir", ".ipynb_checkpoints", "__MACOSX", ".git", "#recycle", "$RECYCLE.BIN", ".Trash-0"),
    *("System Volume Information", "__pycache__", "lost+found", "@Recycle", "__macosx"),
)
_CLUTTER_FILES = ("Thumbs.db", ".DS_Store", "._1.png", "desktop.ini", "~$1.png", ".hidden.png")
_CLASSES = (
    *("lymphocyte", "monocyte", "\u00f6", "o\u0308", "细胞", "a b", "x, y", "B", "b", "e\u0301o"),
    *("training cell", "k", "erythroblast (late)", "\u202eba"),
)
_ACCENTED = ("\u00f6", "e\u0301o", "\u00e5sa", "caf\u00e9")
_LEVELS = {
    "part": ("train", "val", "test"),
    "part, odd words": ("Training", "valid", "holdout"),
    "fold": ("fold_1", "fold 2", "Fold-3"),
    "patient": ("P01", "P02", "patient_3"),
    "patient, by name": ("J\u00f6rg", "Zoe\u0308", "Ana"),
    "slide": ("slide_1", "smear 2", "film-c"),
}
_TWO_LEVELS = (("part", "patient"), ("part", "fold"), ("part, odd words", "patient, by name"))
_PART_OF = {"Training": "train", "valid": "val", "holdout": "test"}
_NAMES = st.sampled_from(
    [*_CLASSES, *(name for names in _LEVELS.values() for name in names), *_CLUTTER, "0017", "P1"]
)
_FILES = st.sampled_from(
    [
        *_CLUTTER_FILES,
        "1.png",
        "2.PNG",
        "\u00f6.png",
        "o\u0308.png",
        "notes.txt",
        "x.zip",
        "\x07.png",
    ]
)


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder to be made.

    Attributes:
        files: path to a number; files of one number have the same bytes, 0 is no image.
        folders: made empty.
        links: path to the folder, below the same root, that it points to.
        levels: the layout that the files follow, None for none.
    """

    files: dict[str, int]
    folders: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    levels: tuple[str, ...] | None = None
    wrapper: str = ""

    def write(self, root: Path) -> None:
        """Makes the folder; names that cannot be, such as a file in a file, are left out."""
        root.mkdir()
        for name in self.folders:
            _attempt(lambda path=root / name: path.mkdir(parents=True))
        for name, number in self.files.items():
            data = inputs.IMAGES["PNG"] + bytes([number]) if number else b"no image"
            _attempt(lambda path=root / name: path.parent.mkdir(parents=True, exist_ok=True))
            _attempt(lambda path=root / name, data=data: path.write_bytes(data))
        for name, target in self.links:
            goal = os.path.relpath(root / target, (root / name).parent)
            _attempt(lambda path=root / name, goal=goal: path.symlink_to(goal))


def _attempt(action) -> None:
    try:
        action()
    except (FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError):
        return


@st.composite
def _layouts(draw: st.DrawFn) -> Tree:
    """Class folders below up to two levels that mean something, with clutter among them."""
    levels = draw(st.sampled_from([(), *((level,) for level in _LEVELS), *_TWO_LEVELS]))
    names = draw(st.sampled_from([_CLASSES, _ACCENTED]))
    classes = draw(st.lists(st.sampled_from(names), min_size=2, max_size=4, unique_by=_composed))
    above = [""]
    for level in levels:
        names = _LEVELS[level]
        names = names[: draw(st.integers(2, 3))]
        above = [f"{folder}{name}/" for folder in above for name in names]
    wrapper = draw(st.sampled_from(["", "", "PBC_dataset/", "download/PBC dataset/"]))
    files: dict[str, int] = {}
    # Some files are copies of the first of their class, often in another part.
    copies = draw(st.sets(st.integers(1, 60), max_size=8))
    first: dict[str, int] = {}
    for folder in above:
        # Copied from a Mac, or not.
        form = draw(st.sampled_from(["NFC", "NFD"]))
        for label in classes:
            for number in range(draw(st.integers(3, 5))):
                name = f"{wrapper}{folder}{unicodedata.normalize(form, label)}/{number}.png"
                first.setdefault(label, len(files) + 1)
                files[name] = first[label] if len(files) in copies else len(files) + 1
    places = ["", wrapper, *(wrapper + folder for folder in above)]
    class_folders = sorted({name.rpartition("/")[0] for name in files})
    places += [f"{name}/" for name in class_folders]
    folders: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.sampled_from(places))
        clutter = draw(st.sampled_from(_CLUTTER))
        inner = draw(st.sampled_from(["", "/1.png", "/lymphocyte/1.png", "/train/monocyte/1.png"]))
        if inner:
            files[place + clutter + inner] = draw(st.integers(1, 250))
        else:
            folders.append(place + clutter)
        files[place + draw(st.sampled_from(_CLUTTER_FILES))] = draw(st.integers(0, 250))
    links = ()
    if draw(st.booleans()):
        place = draw(st.sampled_from(class_folders))
        links = ((f"{place}/again", draw(st.sampled_from([place, wrapper or ".", "gone"]))),)
    meaning = tuple(level.partition(",")[0] for level in levels)
    return Tree(files, tuple(folders), links, meaning, wrapper)


@st.composite
def _wild(draw: st.DrawFn) -> Tree:
    """Folders, files and links anywhere."""
    folder = st.lists(_NAMES, max_size=4).map("/".join)
    paths = st.tuples(folder, _FILES).map(lambda both: "/".join(filter(None, both)))
    files = draw(st.dictionaries(paths, st.integers(0, 6), max_size=12))
    known = [str(PurePosixPath(name).parent) for name in files] or ["."]
    links = st.tuples(st.tuples(folder, _NAMES).map("/".join), st.sampled_from([*known, "gone"]))
    return Tree(
        files,
        tuple(filter(None, draw(st.lists(folder, max_size=3)))),
        tuple((name.lstrip("/"), target) for name, target in draw(st.lists(links, max_size=2))),
    )


TREES = _layouts() | _wild()


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_clutter(name: str) -> bool:
    known = {clutter.lower() for clutter in (*_CLUTTER, *_CLUTTER_FILES)}
    return name.startswith(".") or name.lower() in known


def read_tree(folder: Path, tree: Tree) -> None:
    """Opens and prepares a folder: classes and whole parts, or one error; never clutter."""
    root = folder / "images"
    tree.write(root)
    try:
        source = open_source(root, min_classes=1)
    except DataError:
        assert tree.levels is None, "a plain layout is refused"
        raise
    _check_files(source, root)
    if tree.levels is not None:
        _check_layout(source, tree)
    if not tree.links and not any("\x07" in name for name in tree.files):
        _check_zip(source, folder, root)
    # shutil.rmtree opens folders below others by their bare names.
    with contextlib.chdir(folder):
        dataset = prepare_dataset(
            "cell_folder", root, folder / "built", progress=False, workers=1, min_classes=1
        )
    assert dataset.class_names == source.class_names
    _check_split(dataset)


def _check_files(source: Source, root: Path) -> None:
    """Every file once, and each either an image of a class or named with why it is not."""
    assert source.class_names == tuple(sorted({file.label for file in source.files}))
    files = [file.file for file in source.files]
    assert len(set(files)) == len(files)
    base = source.root.relative_to(root.resolve())
    used = {(base / file).as_posix() for file in files}
    for name in used:
        assert not any(map(_is_clutter, name.split("/"))), name
    for file in source.files:
        assert source.read(file)
        assert file.label in map(_composed, file.file.split("/")[:-1])
    named = {ignored.file for ignored in source.ignored}
    for directory, _, children in os.walk(root):
        for child in children:
            path = (Path(directory) / child).relative_to(root).as_posix()
            folders = [f"{parent.as_posix()}/" for parent in PurePosixPath(path).parents]
            found = path in used or path in named or ascii(path) in named
            assert found or named & set(folders), f"{path} is passed over in silence"


def _check_layout(source: Source, tree: Tree) -> None:
    """Labels, parts and groups are those that the layout was made with."""
    made = {}
    for name in tree.files:
        parts = name.removeprefix(tree.wrapper).split("/")
        if not name.startswith(tree.wrapper) or any(map(_is_clutter, name.split("/"))):
            continue
        made["/".join(parts)] = dict(zip(tree.levels, parts, strict=False)) | {
            "label": _composed(parts[len(tree.levels)])
        }
    assert {file.file for file in source.files} == set(made)
    for file in source.files:
        for level in ("label", "patient", "slide", "fold", "part"):
            value = _composed(made[file.file].get(level, ""))
            assert (getattr(file, level) or "") == _PART_OF.get(value, value), (file, level)


def _check_zip(source: Source, folder: Path, root: Path) -> None:
    """The zip of a folder gives the same images."""
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root).as_posix())
    zipped = open_source(folder / "images.zip", min_classes=1)
    assert zipped.class_names == source.class_names
    facts = ("file", "label", "patient", "slide", "fold", "part")
    for one, other in zip(zipped.files, source.files, strict=True):
        assert [getattr(one, name) for name in facts] == [getattr(other, name) for name in facts]


def _check_split(dataset) -> None:
    """No content is in two parts, and given parts stay, except what is held out of train."""
    records = dataset.records
    split = records.split(dataset.class_names)
    where: dict[str, set[str]] = {}
    for content, part in zip(records.sha256, split.part, strict=True):
        if part != "dropped":
            where.setdefault(content, set()).add(part)
    assert all(len(parts) == 1 for parts in where.values()), where
    missing = {"val", "test"} - set(records.part)
    for given, part in zip(records.part, split.part, strict=True):
        allowed = {given, "dropped"} | (missing if given == "train" else set())
        assert not given or part in allowed, (given, part)
    if split.level != "image":
        groups: dict[str, set[str]] = {}
        for group, part in zip(split.group, split.part, strict=True):
            if part != "dropped":
                groups.setdefault(group, set()).add(part)
        assert all(len(parts) == 1 for parts in groups.values()), groups
    assert np.all(np.isin(split.part, ["train", "val", "test", "dropped"]))
