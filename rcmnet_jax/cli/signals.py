"""SIGTERM outside the training loop: the process ends at once, with our status.

Not by an exception: raised while an extension module loads, or in a callback of the garbage
collector (jax has one), it is turned into another one or thrown away. Ending at once is safe at any
moment because being killed is: files are whole or not there, and the same command goes on.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from rcmnet_jax.cli.exit_codes import INTERRUPTED

MESSAGE = b"stopped as asked, outside training; run the same command to go on\n"


@contextlib.contextmanager
def sigterm_ends() -> Iterator[None]:
    """While inside, SIGTERM ends the process with `INTERRUPTED`, unless someone else handles it.

    Only the main thread can install handlers; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    # Past Python's buffers, which the interrupted code may be in the middle of.
    os.write(2, MESSAGE)
    os._exit(INTERRUPTED)
