"""When a run is asked to stop: SIGTERM, in this process or in another of the same run."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax


class StopRequest:
    """Whether the run should save and stop, the same answer in every process.

    In one process SIGTERM sets it. In several, JAX's preemption service passes the signal that
    one of them got on to all, and names the dispatch after which all stop: a checkpoint of
    different steps would be none.
    """

    def __init__(self):
        self._event = threading.Event()
        self._several = jax.process_count() > 1
        self._dispatches = 0

    def make(self) -> None:
        """Makes the request."""
        self._event.set()

    def look(self) -> None:
        """Called once after every dispatch, in every process."""
        self._dispatches += 1
        if self._several:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(self._dispatches):
                self.make()

    @property
    def made(self) -> bool:
        """Whether it was made; between two looks, the answer of several processes is the same."""
        return self._event.is_set()

    @contextlib.contextmanager
    def by_sigterm(self) -> Iterator[None]:
        """While inside, SIGTERM makes the request instead of ending the process.

        Only the main thread can install handlers; elsewhere the caller's arrangement stands, and
        in several processes JAX's, which is installed already.
        """
        if self._several or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self.make())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
