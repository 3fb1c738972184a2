"""Work spread over threads: Pillow, hashing and file reads all release the interpreter lock.

Never processes: a fork after JAX has started can deadlock.
"""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """One thread for each core this process may use, at most 16."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(16, cores)


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None
) -> Iterator[Result]:
    """Yields ``function(item)`` in the order of `items`, computed in threads.

    Only a few items are in flight at once, so results do not pile up in memory when the
    consumer (a disk, say) is slower than the threads.

    Args:
        function: called in a worker thread.
        items: read lazily.
        workers: number of threads; one for each core when None.

    Raises:
        Exception: whatever `function` raises, at the item that raised it.
    """
    workers = workers or default_workers()
    pending: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="rcmnet-data") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def progress_bar(total: int, description: str, *, enabled: bool, unit: str = "image") -> tqdm:
    """A progress bar on standard error; ``enabled=False`` gives one that stays silent."""
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        # None: silent where standard error is no terminal, as in a log file.
        disable=None if enabled else True,
        mininterval=0.5,
        dynamic_ncols=True,
        leave=False,
    )
