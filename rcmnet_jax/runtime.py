"""Process settings made before jax is imported: compile cache, memory pages, log level."""

import contextlib
import os
import sys
from pathlib import Path

from rcmnet_jax.files import can_write

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

    Compiled steps are kept in `compile_cache_dir`, so that the second start of a run does not
    compile again. Where that cannot be written the cache is off, with one line on standard error.
    Call this before anything imports jax.
    """
    directory = compile_cache_dir()
    if directory is not None and can_write(directory):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    elif os.environ.get(CACHE_VARIABLE) != "off":
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
        print(
            f"compiled programs are not kept: {directory or 'the home folder'} cannot be written;"
            f" set {CACHE_VARIABLE} to a folder, or to off",
            file=sys.stderr,
        )
    # TFDS and others log through TensorFlow's logger when it is installed.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def compile_cache_dir() -> Path | None:
    """The folder of compiled programs, from the environment or in the home folder.

    Returns:
      ``$RCMNET_COMPILE_CACHE``, ``$JAX_COMPILATION_CACHE_DIR`` or ``~/.cache/rcmnet_jax/xla``, the
      first that is set; None where it is ``off`` or there is no home folder.
    """
    cache = os.environ.get(CACHE_VARIABLE)
    if cache == "off":
        return None
    chosen = cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or "~/.cache/rcmnet_jax/xla"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        return None


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
