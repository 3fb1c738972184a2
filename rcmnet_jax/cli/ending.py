"""How every command ends: one line and a status for what users can mend, whatever is closed."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable

from rcmnet_jax.cli.exit_codes import CLOSED_PIPE, STOPPED, USER_ERROR
from rcmnet_jax.errors import UserError

# What a file system says of a path that a user can mend: closed, a link in a circle, too long.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


def exit_status(command: Callable[[], int]) -> int:
    """Runs a command and turns the ways it can end into an exit status."""
    open_standard_streams()
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        _discard_output()
        return CLOSED_PIPE
    except OSError as error:
        if error.errno not in _REFUSALS or error.filename is None:
            raise
        place = os.fsdecode(error.filename)
        print(
            f"error: {place} cannot be opened ({error.strerror}): check the path and its"
            " permissions",
            file=sys.stderr,
        )
        return USER_ERROR
    except (RuntimeError, AssertionError):
        if _jax_has_devices():
            raise
        print(f"error: {_no_devices()}", file=sys.stderr)
        return USER_ERROR


def _jax_has_devices() -> bool:
    """Whether jax starts; True where it was never imported."""
    if "jax" not in sys.modules:
        return True
    import jax

    try:
        jax.devices()
    # What jax raises for a platform that is not there, by whether its plugin is installed.
    except (RuntimeError, AssertionError):
        return False
    return True


def _no_devices() -> str:
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if not platforms:
        return "jax finds no device here: rcmnet doctor says what is missing"
    return (
        f"JAX_PLATFORMS={platforms} asks for a device that jax does not find here: unset it, or"
        " set it to cpu; rcmnet doctor says what is missing"
    )


def open_standard_streams() -> None:
    """Opens the standard streams that are closed, on the null device.

    Otherwise the next file that is opened would take the number of standard error, and receive
    whatever a C++ library logs.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _discard_output() -> None:
    """Lets Python flush its buffers at exit without meeting the closed pipe again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
