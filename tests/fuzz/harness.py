"""What every input must lead to: a result, or one line that says what to mend.

Bounds are on each single input: its time, the growth of the process's memory, and the files that
are opened while it is read.
"""

import contextlib
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rcmnet_jax.errors import UserError

SECONDS = 20.0  # a busy machine; the usual input takes milliseconds
MEGABYTES = 700.0  # an image at the limit of 64 megapixels, decoded and converted
# Python loads its own modules when it wants to, and codecs, and time zones; jax what it compiled.
_SYSTEM = (
    *(sys.prefix, sys.base_prefix, "/usr/", "/lib", "/proc/self", "/proc/meminfo", "/etc/ld.so"),
    os.environ["RCMNET_COMPILE_CACHE"],
)
# Events that mean that an input was run, or reached beyond this machine.
FORBIDDEN = (
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "ctypes.dlopen",
)

_watched: list[tuple[str, Any]] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and (event == "open" or event in FORBIDDEN):
        what = arguments[0] if arguments else None
        if event == "open" and isinstance(what, str | bytes):
            what = os.path.abspath(what)  # of the working folder at this moment
        _watched.append((event, what if isinstance(what, str | bytes | int) else repr(what)[:200]))


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched() -> Iterator[list[tuple[str, Any]]]:
    """Collects the files opened, and the forbidden events, of the block."""
    global _watched
    found: list[tuple[str, Any]] = []
    _watched = found
    try:
        yield found
    finally:
        _watched = None


def outside(events: list[tuple[str, Any]], *allowed: Path) -> list[tuple[str, Any]]:
    """Those events that must not be: files outside some folders, or anything forbidden."""
    bad = []
    for event, what in events:
        if event != "open":
            bad.append((event, what))
            continue
        if isinstance(what, int):
            continue  # an open file given another mode
        path = os.path.realpath(os.fsdecode(what))
        inside = any(Path(path).is_relative_to(os.path.realpath(folder)) for folder in allowed)
        if not inside and not path.startswith(_SYSTEM) and "site-packages" not in path:
            bad.append((event, path))
    return bad


def survives(action: Callable[[], Any], *allowed: Path) -> str:
    """Runs an action on an input; ``ok`` or ``told``.

    Args:
        action: reads the input.
        *allowed: the only folders it may open files in.
    """
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with watched() as events, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            action()
            ending = "ok"
        except UserError as error:
            ending = "told"
            message = str(error)
            assert message.strip(), "an error without a word"
            assert "\n" not in message, message
            assert len(message) < 2000, message[:200]
    assert time.monotonic() - started < SECONDS
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB"
    assert not outside(events, *allowed), outside(events, *allowed)
    return ending
