"""SIGTERM outside the training loop, wherever it arrives."""

import signal
import subprocess
import sys

import pytest

from rcmnet_jax.cli.signals import MESSAGE, sigterm_ends

START = """
import gc, os, signal, sys, weakref
from rcmnet_jax.cli.signals import sigterm_ends

def terminate(*_):
    os.kill(os.getpid(), signal.SIGTERM)

class Dying:
    def __del__(self):
        terminate()

with sigterm_ends():
"""
# Where an exception would be changed or thrown away, and where it would not.
PLACES = {
    "in plain code": "    terminate()",
    "in a callback of the garbage collector": "    gc.callbacks.append(terminate); gc.collect()",
    "in a destructor": "    dying = Dying(); del dying",
    "where everything is caught": """
    try:
        terminate()
    except BaseException:
        pass
""",
}


@pytest.mark.parametrize("place", PLACES)
def test_it_ends_the_process_with_its_own_status(place):
    code = f"{START}{PLACES[place]}\n    print('still here', flush=True)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 75
    assert done.stderr == MESSAGE
    assert done.stdout == b""


def test_the_handler_before_is_restored():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_ends():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
