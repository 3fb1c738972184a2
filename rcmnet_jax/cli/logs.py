"""What of the log reaches standard error."""

import logging
import sys
from collections.abc import Callable
from typing import Any


def configure_logging() -> None:
    """Shows what this library tells, and warnings of everything else, one line each.

    What Orbax raises it also logs with tracebacks, through absl, and through asyncio where several
    writes failed at once; we report it once, in our words.
    """
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_OneLine())
    logging.getLogger("rcmnet_jax").setLevel(logging.INFO)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _WithoutLateReads):
        sys.unraisablehook = _WithoutLateReads(sys.unraisablehook)


class _WithoutLateReads:
    """Passes on what Python cannot raise, but for reads that end after Orbax has given up.

    Of a damaged checkpoint the first read that fails is reported. Those beside it may end later and
    find their event loop closed, which Python would print with a traceback.
    """

    def __init__(self, hook: Callable[[Any], None]):
        self._hook = hook

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._hook(unraisable)


class _OneLine(logging.Formatter):
    """The message, with its level in front where that is more than information."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno <= logging.INFO else f"{record.levelname}: {message}"
