"""What a start costs: imports, compilations, memory."""

import subprocess
import sys
import time
import tracemalloc

import jax
import numpy as np
import pytest

from rcmnet_jax.data.batches import StreamBatches
from rcmnet_jax.data.order import BatchOrder
from rcmnet_jax.training import log
from rcmnet_jax.training.loop import train
from tests.training.runs import config_of

# One for every program that is traced and lowered, whether or not it is in the cache on disk.
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


def run_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_library_takes_less_than_a_third_of_a_second():
    # Of the processor, since other work may run beside the tests.
    code = "import time; t = time.process_time(); import rcmnet_jax; print(time.process_time() - t)"
    assert float(run_python(code)[0]) < 0.3


def test_the_command_line_starts_without_jax_and_numpy():
    code = (
        "import rcmnet_jax.cli.main as m, rcmnet_jax.cli.train, sys; m._parser()\n"
        "print(*sys.modules)"
    )
    assert not {"jax", "numpy", "flax", "tensorflow_datasets"} & set(run_python(code))


def test_the_first_step_waits_for_no_plotting_and_no_optimiser_of_scipy():
    code = "import rcmnet_jax.training.loop, rcmnet_jax.training.repeats, sys; print(*sys.modules)"
    assert not {"matplotlib", "scipy.optimize", "scipy.stats", "onnx"} & set(run_python(code))


@pytest.mark.parametrize(
    "changes",
    [{"train.steps_per_dispatch": 3}, {"data.cache": "host", "checkpoint.every_steps": 2}],
    ids=["device", "host"],
)
def test_nothing_is_compiled_after_the_first_epoch(cells, tmp_path, monkeypatch, changes):
    lowered = 0
    # Step and epoch rows as they are written, with the number of programs made until then.
    counts: list[tuple[str, int]] = []

    def count(event, duration, **_):
        nonlocal lowered
        lowered += event == LOWERED

    write = log.RunLog.write
    monkeypatch.setattr(
        log.RunLog,
        "write",
        lambda self, kind, *rest: (counts.append((kind, lowered)), write(self, kind, *rest)),
    )
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        train(config_of(cells, "epochs=4", **changes), tmp_path / "run")
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    first_of_second_epoch = [kind for kind, _ in counts].index("epoch") + 1
    assert counts[first_of_second_epoch][1] > 0
    assert counts[first_of_second_epoch][1] == counts[-1][1]


def test_a_stream_holds_a_few_batches_however_large_the_set_and_slow_the_step():
    side, images, batch = 128, 1000, 8
    order = BatchOrder(np.zeros(images, int), batch_size=batch, seed=0)
    source = StreamBatches(
        lambda i: np.full((side, side, 3), i % 256, np.uint8), np.arange(images), order
    )
    # What reading imports on first use is not counted.
    list(source.iterate(0, 1))
    tracemalloc.start()
    try:
        for number, delivered in enumerate(source.iterate(0, order.steps_per_epoch)):
            assert delivered["image"].shape == (batch, side, side, 3)
            if number < 20:
                # So that reading runs ahead as far as it may.
                time.sleep(0.02)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Four batches read ahead, some more in the hands of the threads; the set is 125 batches.
    assert peak < 12 * batch * side * side * 3
