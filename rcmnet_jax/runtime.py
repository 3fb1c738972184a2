"""Process settings made before jax is imported: compile cache, memory pages, log level."""

import contextlib
import os
import sys
from pathlib import Path

CACHE_VARIABLE = "RCMNET_COMPILE_CACHE"
HUGE_PAGES_VARIABLE = "RCMNET_HUGE_PAGES"
# glibc reads its settings once, when a process starts.
TUNABLES_VARIABLE = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
# Large blocks from the one heap too, and nothing given back to the system: the next step asks for
# the same block again. Without thread caches, because a cached scrap beside a freed block keeps
# glibc from using the block again, and the heap grows by another one.
KEPT_HEAP = (
    f"{HUGE_PAGES}:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1"
    ":glibc.malloc.trim_threshold=1099511627776:glibc.malloc.tcache_count=0"
)
# Least memory of a machine on which the heap is kept.
KEPT_HEAP_BYTES = 20 * 2**30
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def configure_runtime() -> None:
    """Sets this process's defaults for jax; variables already in the environment win.

    Compiled programs are kept in ``$RCMNET_COMPILE_CACHE`` or ``~/.cache/rcmnet_jax/xla`` (``off``
    turns that off), so that a second start does not compile again. Call it before anything imports
    jax.
    """
    cache = os.environ.get(CACHE_VARIABLE) or "~/.cache/rcmnet_jax/xla"
    if cache != "off":
        directory = Path(cache).expanduser()
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # TensorFlow is not used, but TFDS imports it where it is installed, and it logs a greeting.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def use_huge_pages() -> None:
    """Replaces this process with itself, on a heap of huge pages that keeps its memory.

    XLA on CPU asks malloc for hundreds of megabytes at each step and frees them. Taken from the
    system anew in pages of 4 kB they cost a tenth to a third of a training step
    (docs/performance.md). glibc reads its settings from the environment at the start of a process
    only, hence the `execve`. The heap is kept from `KEPT_HEAP_BYTES` of memory on.

    For programs, before they have done anything. In a notebook, set ``GLIBC_TUNABLES`` to
    `KEPT_HEAP` before starting Jupyter. ``RCMNET_HUGE_PAGES=off`` turns it off.
    """
    if not huge_pages_would_help():
        return
    settings = KEPT_HEAP if memory_bytes() >= KEPT_HEAP_BYTES else HUGE_PAGES
    tunables = [os.environ.get(TUNABLES_VARIABLE), settings]
    environment = {**os.environ, TUNABLES_VARIABLE: ":".join(filter(None, tunables))}
    # Without them everything works too.
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def huge_pages_would_help() -> bool:
    """Whether Linux grants huge pages on request and no setting says already whether to ask."""
    if os.environ.get(HUGE_PAGES_VARIABLE) == "off" or not sys.executable:
        return False
    if "glibc.malloc.hugetlb" in os.environ.get(TUNABLES_VARIABLE, ""):
        return False
    try:
        return "[madvise]" in KERNEL_SETTING.read_text()
    except OSError:
        # Not Linux, or not readable.
        return False


def memory_bytes() -> int:
    """The machine's memory, or the container's limit where that is less; 0 if unknown."""
    memory = machine_memory()["total"] or 0
    # No such file, or "max": no limit.
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(CONTAINER_LIMIT.read_text()))
    return memory


def machine_memory() -> dict[str, int | None]:
    """The machine's ``total`` and ``available`` memory in bytes; None if unknown."""
    facts: dict[str, int | None] = {"total": None, "available": None}
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return facts
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}
    return {"total": values.get("MemTotal"), "available": values.get("MemAvailable")}
