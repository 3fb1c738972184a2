"""What of the log reaches standard error."""

import logging


def configure_logging() -> None:
    """Shows warnings of this library and of Python, one line each.

    Orbax logs through absl what it also raises, with tracebacks; we tell it once, in our words.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
