"""What must be settled before jax is imported: compile cache, memory, compiler flags."""

import os
from pathlib import Path

CACHE_VARIABLE = "RCMNET_COMPILE_CACHE"


def configure_runtime() -> None:
    """Sets defaults of this process for jax; anything already in the environment wins.

    The compiled steps are kept on disk, in ``$RCMNET_COMPILE_CACHE`` or
    ``~/.cache/rcmnet_jax/xla`` (``off`` turns that off), so that the second start of a run does
    not compile again. Call it before anything imports jax.
    """
    cache = os.environ.get(CACHE_VARIABLE) or "~/.cache/rcmnet_jax/xla"
    if cache != "off":
        directory = Path(cache).expanduser()
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # TensorFlow is not used, but TFDS and others greet through its logger when it is installed.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
