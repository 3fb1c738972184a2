"""One side of a comparison: a process that prepares a network and times it on request.

Started as ``python -m benchmarks.worker SIDE`` by `benchmarks.turns`; requests and answers are
lines of JSON. The PyTorch sides need neither jax nor rcmnet_jax, so they run under any interpreter
that has torch and numpy.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback

from benchmarks.cases import OURS, Case

# Further untimed steps after the first call: the heap grows within the first ten.
WARM_STEPS = 10


def main() -> None:
    # Answers go where the parent reads; everything that libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if sys.argv[1] == OURS:
        from rcmnet_jax.runtime import configure_runtime

        configure_runtime()
        # PyTorch's processes are on the same GPU.
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")
    name = "jax_side" if sys.argv[1] == OURS else "torch_side"
    worker = _Worker(importlib.import_module(f"benchmarks.{name}"))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # Whatever a framework raises, the other sides continue.
            traceback.print_exc()
            # Some errors have no message.
            first_line = str(error).strip().partition("\n")[0]
            answer = {"error": f"{type(error).__name__}: {first_line[:200]}"}
        answers.write(json.dumps(answer) + "\n")


class _Worker:
    """Answers the requests; each method is one."""

    def __init__(self, module):
        self._module = module

    def prepare(self, case, weights, compiled) -> dict:
        """Builds the network; ours writes the weights file, the others read it."""
        self._subject = self._module.Subject(Case(**case), weights, compiled)
        return {"device": self._subject.device, "versions": self._subject.versions}

    def check(self, path) -> dict:
        """Writes logits, the loss of a step and a Grad-CAM map, for comparison."""
        self._subject.check(path)
        return {}

    def first(self, task) -> dict:
        """One call."""
        self._subject.run(task)
        return {}

    def warm(self, task) -> dict:
        """Calls that are not timed; the first may compile."""
        self._subject.run(task)
        # Compilers may specialise at the second call, and allocators settle.
        for _ in range(-(-WARM_STEPS // self._subject.repeats)):
            self._subject.run(task)
        return {}

    def time(self, task, seconds) -> dict:
        """Seconds a call, by the clock and of the CPU, over calls for a time, at least one."""
        calls, start, cpu = 0, time.perf_counter(), time.process_time()
        while calls == 0 or time.perf_counter() - start < seconds:
            self._subject.run(task)
            calls += 1
        return {
            "seconds": (time.perf_counter() - start) / calls,
            # Of all threads: on a busy machine this is the steadier figure.
            "cpu_seconds": (time.process_time() - cpu) / calls,
            "images": self._subject.images(task),
        }

    def memory(self) -> dict:
        """Peak memory of this process, in bytes: on the host, and on the accelerator."""
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"host": host, "device": self._subject.device_memory()}

    def flops(self) -> dict:
        """Of one image's forward pass; ours only."""
        return {"flops": self._subject.flops()}


if __name__ == "__main__":
    main()
