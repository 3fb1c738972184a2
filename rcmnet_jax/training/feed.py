"""From the batch order to the arguments of one call of the compiled step."""

from collections.abc import Iterator

import jax
import numpy as np

from rcmnet_jax.data.batches import BatchSource, HostBatches, StreamBatches, process_share
from rcmnet_jax.data.on_demand import OnDemandPixels
from rcmnet_jax.data.order import filled_up
from rcmnet_jax.hosts.mesh import put_batch, put_replicated
from rcmnet_jax.training.experiment import Experiment

# On an accelerator a call of the compiled step costs the host more than the device; on CPU the
# loop around several steps gains nothing and compiles longer.
STEPS_PER_DISPATCH = {"cpu": 1, "gpu": 16, "tpu": 16}
STEPS_PER_DISPATCH_OF_FEATURES = 128


class Feed:
    """Arguments for the compiled step, by ``data.cache``.

    With ``device`` the train split is placed once, and a dispatch is the row numbers of several
    steps; otherwise a dispatch is one step's batch of pixels. Features of a frozen backbone take
    the place of the pixels, always on the device.

    Args:
      experiment: gives the order, the pixels and the devices.
      features: of the train split, (N, V, h, w, C), where the backbone is frozen.

    Attributes:
      on_device: whether a dispatch is row numbers of a split on the device.
      chunk: steps that one call of the compiled step has room for.
    """

    def __init__(self, experiment: Experiment, features: np.ndarray | None = None):
        config, self._mesh, self._order = experiment.config, experiment.mesh, experiment.order
        self._save_every = config.checkpoint.every_steps
        self.on_device = config.data.cache == "device" or features is not None
        self.chunk = 1
        rows = experiment.split.indices("train")
        self._share = {"process": jax.process_index(), "processes": jax.process_count()}
        if self.on_device:
            labels = self._order.labels.astype(np.int32)
            if features is None:
                # What fills the rows up is in no batch.
                labels = labels[filled_up(np.arange(len(labels)))]
                split = {"image": experiment.pixels[filled_up(rows)], "label": labels}
                default = STEPS_PER_DISPATCH.get(jax.default_backend(), 1)
            else:
                # A step of the classifier alone is shorter than its call.
                split = {"features": features, "label": labels}
                default = STEPS_PER_DISPATCH_OF_FEATURES
            self._split = put_replicated(split, self._mesh)
            self.chunk = min(
                config.train.steps_per_dispatch or default, self._order.steps_per_epoch
            )
        elif isinstance(experiment.pixels, OnDemandPixels):
            self._batches: BatchSource = StreamBatches(
                experiment.pixels.one, rows, self._order, **self._share
            )
        else:
            self._batches = HostBatches(experiment.pixels, rows, self._order, **self._share)

    def dispatches(self, start: int, stop: int) -> Iterator[tuple[int, tuple]]:
        """Yields (number of steps, arguments) from step ``start`` to the epoch's end ``stop``."""
        if self.on_device:
            yield from self._device_dispatches(start, stop)
        else:
            for batch in self._batches.iterate(start, stop):
                yield 1, (put_batch(batch, self._mesh),)

    def _device_dispatches(self, start: int, stop: int) -> Iterator[tuple[int, tuple]]:
        while start < stop:
            count = self._dispatch_end(start, stop) - start
            rows_and_views = tuple(
                # Room for a whole chunk, so that one program serves the short ones too.
                np.pad(process_share(a, **self._share), ((0, self.chunk - count), (0, 0)))
                for a in self._order.batches(start, count)
            )
            index, view = put_batch(rows_and_views, self._mesh, axis=1)
            steps = put_replicated(np.asarray(count, np.int32), self._mesh)
            yield count, (self._split, index, view, steps)
            start += count

    def _dispatch_end(self, start: int, stop: int) -> int:
        """Where a dispatch ends: at fixed places, so that a resumed run makes the same calls."""
        epoch_start = stop - self._order.steps_per_epoch
        end = epoch_start + ((start - epoch_start) // self.chunk + 1) * self.chunk
        if self._save_every:
            end = min(end, (start // self._save_every + 1) * self._save_every)
        return min(end, stop)
