"""Which backend kernels are formulated for; `plainly()` forces XLA's own."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("backend", default=None)


def backend() -> str:
    """``cpu``, ``gpu`` or ``tpu``; ``plain`` inside `plainly`."""
    return _forced.get() or jax.default_backend()


@contextlib.contextmanager
def formulated_for(name: str) -> Iterator[None]:
    """Functions traced in here use the kernels of another backend: values and gradients agree."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def plainly() -> contextlib.AbstractContextManager[None]:
    """Networks traced in here use XLA's own convolutions and maxima.

    For programs that are never run at speed: shapes, initial parameters, and counting
    multiplications. They take a quarter less time to trace.
    """
    return formulated_for("plain")
