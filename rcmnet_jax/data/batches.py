"""Delivery of training batches, three ways that give the same batches for the same seed.

``device``: the train split lies on the accelerator as uint8 and a step gathers its rows there, so
only row numbers travel. ``host``: rows are gathered from the decoded cache in a background thread.
``stream``: Grain reads and decodes the original bytes in threads, for sets larger than memory.
A batch is a dict of ``image`` (B, H, W, 3) uint8, ``label`` (B,) int32 and ``view`` (B,) int32.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from rcmnet_jax.data.order import BatchOrder

CACHES = ("device", "host", "stream")
Batch = dict[str, np.ndarray]


class BatchSource(Protocol):
    """Batches of consecutive steps, this process's share of each."""

    def iterate(self, start: int, stop: int) -> Iterator[Batch]: ...


def process_share(rows: np.ndarray, process: int, processes: int) -> np.ndarray:
    """The contiguous part of a global batch (axis -1) that one of several processes feeds."""
    share = rows.shape[-1] // processes
    return rows[..., process * share : (process + 1) * share]


class HostBatches:
    """Batches gathered from a decoded array, one ahead of the step that needs it.

    Args:
      pixels: (M, H, W, 3) uint8 of the whole data set, usually memory-mapped.
      rows: (N,) positions of the train split in ``pixels``.
      order: the order of the train split.
      process: index of this process; it delivers its share of every batch.
      processes: how many there are.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: np.ndarray,
        order: BatchOrder,
        *,
        process: int = 0,
        processes: int = 1,
    ):
        self._pixels, self._rows, self._order = pixels, rows, order
        self._share = (process, processes)

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of one step."""
        index, view = (process_share(a, *self._share) for a in self._order.batch(step))
        return {
            "image": self._pixels[self._rows[index]],
            "label": self._order.labels[index].astype(np.int32),
            "view": view,
        }

    def iterate(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of steps ``start`` to ``stop - 1``."""
        return prefetch((self.batch(step) for step in range(start, stop)), ahead=2)


class _Examples:
    """Grain's view of the run: entry i is the i-th training example that this process decodes."""

    def __init__(
        self, read, rows, order: BatchOrder, share: tuple[int, int], start: int, stop: int
    ):
        self._read, self._rows, self._order, self._share = read, rows, order, share
        self._per_step = order.batch_size // share[1]
        self._start, self._length = start, (stop - start) * self._per_step

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> Batch:
        step, offset = divmod(position, self._per_step)
        index, view = (
            process_share(a, *self._share)[offset] for a in self._order.batch(self._start + step)
        )
        return {
            "image": self._read(int(self._rows[index])),
            "label": np.int32(self._order.labels[index]),
            "view": np.int32(view),
        }


class StreamBatches:
    """Batches read and decoded on the fly by Grain, in threads, nothing kept but a few batches.

    Args:
      read: decodes one image of the data set by its position: (H, W, 3) uint8.
      rows: (N,) positions of the train split in the data set.
      order: the order of the train split.
      threads: how many images are decoded at once.
      process: index of this process; it decodes its share of every batch.
      processes: how many there are.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        rows: np.ndarray,
        order: BatchOrder,
        *,
        threads: int = 4,
        process: int = 0,
        processes: int = 1,
    ):
        self._read, self._rows, self._order = read, rows, order
        self._share, self._threads = (process, processes), threads

    def iterate(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of steps ``start`` to ``stop - 1``."""
        # Here, since a run whose images lie on the device does without.
        import grain.python as grain

        examples = _Examples(self._read, self._rows, self._order, self._share, start, stop)
        per_step = self._order.batch_size // self._share[1]
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=4 * per_step)
        dataset = grain.MapDataset.source(examples).to_iter_dataset(options).batch(per_step)
        return iter(dataset)


def prefetch(items: Iterator, *, ahead: int) -> Iterator:
    """Runs an iterator in a thread, up to ``ahead`` items before they are asked for.

    An error in the thread is raised where the item would have come; leaving the loop early stops
    the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stopped = threading.Event()
    end = object()

    def put(item) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:  # Handed to the consumer, which raises it.
            put((end, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
