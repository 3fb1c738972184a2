"""Fonts for class names in any script: the first installed ones that have the letters.

Matplotlib brings DejaVu Sans, which lacks Chinese, Japanese, Korean and most Indic letters. Where
no installed font has a letter, figures show ``class 3`` instead of a box.
"""

import functools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

logger = logging.getLogger(__name__)

DEFAULT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
# Tried first, in this order: sans-serif families with many letters. Then every other font.
_PREFERRED = ("NotoSansCJK", "NotoSans", "SourceHanSans", "wqy-", "DroidSansFallback", "unifont")


def font_files(texts: Iterable[str]) -> tuple[list[Path], set[str]]:
    """The font files that together have the letters of some texts.

    Returns:
      The files, `DEFAULT` first, and the letters that no installed font has.
    """
    missing = {letter for text in texts for letter in text if letter.isprintable()}
    missing -= _letters(DEFAULT)
    files = [DEFAULT]
    for path in _installed() if missing else ():
        if found := missing & _letters(path):
            files.append(path)
            missing -= found
        if not missing:
            break
    return files, missing


def font_of(text: str) -> Path:
    """The font file that has most letters of a text, for Pillow, which takes one font a text."""
    files, _ = font_files([text])
    return max(files, key=lambda path: len(set(text) & _letters(path)))


def drawable_names(names: Sequence[str]) -> list[str]:
    """Class names as figures can show them: ``class 3`` where no installed font has the letters."""
    _, missing = font_files(names)
    shown = [f"class {k}" if missing & set(name) else name for k, name in enumerate(names)]
    replaced = [f"{k} {name}" for k, name in enumerate(names) if shown[k] != name]
    if replaced:
        _warn_once(", ".join(replaced))
    return shown


def use_fallback_fonts(figure: Figure) -> None:
    """Gives the texts of a figure the fonts that have their letters."""
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    files, _ = font_files(text.get_text() for text in texts)
    if len(files) == 1:
        return
    families = [_family(path) for path in files]
    for text in texts:
        text.set_fontfamily(families)


@functools.cache
def _warn_once(classes: str) -> None:
    logger.warning(
        "no installed font has the letters of these class names: %s; figures show their numbers"
        " (a font such as Noto Sans CJK, Debian's fonts-noto-cjk, shows the names)",
        classes,
    )


@functools.cache
def _letters(path: Path) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except (OSError, RuntimeError):  # A font that cannot be read has no letters.
        return frozenset()


@functools.cache
def _installed() -> tuple[Path, ...]:
    # Asked of the system: Matplotlib's own list is a cache that misses fonts installed since.
    paths = [Path(path) for path in font_manager.findSystemFonts()]

    def rank(path: Path) -> tuple[int, bool, str]:
        starts = [k for k, name in enumerate(_PREFERRED) if path.name.startswith(name)]
        return (min(starts, default=len(_PREFERRED)), "Regular" not in path.name, path.name)

    return tuple(sorted(paths, key=rank))


@functools.cache
def _family(path: Path) -> str:
    font_manager.fontManager.addfont(str(path))
    return font_manager.get_font(str(path)).family_name
