"""Ways in which a file on a disk goes bad."""

import shutil
from collections.abc import Callable
from pathlib import Path


def largest_file(step: Path) -> Path:
    """The arrays of a checkpoint."""
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_bit(step: Path) -> None:
    path = largest_file(step)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def truncate(step: Path) -> None:
    path = largest_file(step)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete_arrays(step: Path) -> None:
    largest_file(step).unlink()


def delete_state(step: Path) -> None:
    shutil.rmtree(step / "state")


def change_a_digit_of_the_progress(step: Path) -> None:
    path = step / "progress" / "metadata"
    text = path.read_text()
    assert '"seen": 7' in text
    path.write_text(text.replace('"seen": 7', '"seen": 3'))


def cut_off_the_meta(step: Path) -> None:
    path = step / "meta" / "metadata"
    path.write_text(path.read_text()[:20])


def empty_the_meta(step: Path) -> None:
    (step / "meta" / "metadata").write_text("")


def rename_a_key_of_the_meta(step: Path) -> None:
    path = step / "meta" / "metadata"
    text = path.read_text()
    assert '"class_names"' in text
    path.write_text(text.replace('"class_names"', '"class_nomes"'))


DAMAGE: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        flip_bit,
        truncate,
        delete_arrays,
        delete_state,
        change_a_digit_of_the_progress,
        cut_off_the_meta,
        empty_the_meta,
        rename_a_key_of_the_meta,
    )
}
