"""By what a formulation is chosen besides shapes: the backend, or that none is wanted."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_plain = contextvars.ContextVar("plain", default=False)


def backend() -> str:
    """``cpu``, ``gpu`` or ``tpu``: what computations run on; ``plain`` within `plainly`."""
    return "plain" if _plain.get() else jax.default_backend()


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Networks that are traced in here have XLA's own convolutions and maxima.

    For what is not run: shapes and drawing of parameters, which take a quarter less to trace, and
    counting multiplications. What JAX has traced before, with the same shapes, may stay as it is.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)
