"""What of the log reaches standard error."""

import logging


def configure_logging() -> None:
    """Shows what this library tells, and warnings of everything else, one line each.

    What Orbax raises it also logs with tracebacks, through absl, and through asyncio where several
    writes failed at once; we tell it once, in our words.
    """
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_OneLine())
    logging.getLogger("rcmnet_jax").setLevel(logging.INFO)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


class _OneLine(logging.Formatter):
    """The message, with its level in front where that is more than information."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno <= logging.INFO else f"{record.levelname}: {message}"
