"""SIGTERM as an exception, so that what is open is closed and the exit status is ours."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Terminated(BaseException):
    """SIGTERM arrived. Like `KeyboardInterrupt`, it is no `Exception` that someone might catch."""


@contextlib.contextmanager
def terminate_raises() -> Iterator[None]:
    """While inside, SIGTERM raises `Terminated` in the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    arrived = False

    def handle(*_: object) -> None:
        nonlocal arrived
        arrived = True
        # Once: a scheduler that sends it twice must not break into the closing of files.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    except Exception as error:
        if arrived:
            # Extension modules that are being loaded turn it into an ImportError of their own.
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
