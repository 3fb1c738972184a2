"""Runs all sides of a case in processes of their own and times them in turns."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.cases import OURS, Case

ROOT = Path(__file__).resolve().parents[1]
# Largest deviation of an output from ours over its largest magnitude; in bfloat16 of root mean
# squares, because rounding alone moves single entries of a map by a fifth and the map by 8 %.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}
# Largest part of a batch whose maps may be left out for lying on a kink (`_on_kinks`).
KINKS = 1 / 16
# Seconds after a turn, until the threads of that side sleep.
PAUSE = 0.05


class SideError(Exception):
    """A side failed; the message is one line."""


class Side:
    """One worker process.

    Args:
      name: ``ours``, ``torch_eager`` or ``torch_compiled``.
      python: its interpreter.
      cores: CPU cores it may use; 0: all.
      log: file for its output.
    """

    def __init__(self, name: str, python: str, cores: int, log: Path):
        self.name = name
        self._log = log
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        command = [python, "-m", "benchmarks.worker", name]
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        if cores:
            # At once, before it has threads; a preexec_fn would fork, which JAX warns of.
            _use_cores(self._process.pid, cores)

    def ask(self, do: str, **what) -> dict:
        """A request and its answer.

        Raises:
          SideError: the process ended, or says what went wrong.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            tail = self._log.read_text().strip().splitlines()[-1:] or ["no message"]
            raise SideError(f"{self.name} ended with status {self._process.wait()}: {tail[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        for stream in filter(None, (self._process.stdin, self._process.stdout)):
            # The side may have ended already.
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self._process.wait()


def measure_case(
    case: Case,
    tasks: Sequence[str],
    pythons: dict[str, str],
    *,
    rounds: int,
    seconds: float,
    cores: int,
    log: Path,
    tell,
) -> dict:
    """All tasks of one case, all sides in turns.

    Args:
      case: what to build.
      tasks: names of `benchmarks.cases.TASKS`.
      pythons: side -> interpreter; ours is the first.
      rounds: turns of each side.
      seconds: of a turn, at least one call.
      cores: CPU cores of each side; 0: all.
      log: file for the sides' output.
      tell: called with lines of progress.

    Returns:
      ``case``, ``sides`` (device and versions, peak memory), ``deviation`` of the outputs,
      ``kinks`` (images whose Grad-CAM map was not compared), and ``tasks``: of each side the
      seconds per image of every turn.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running: dict[str, Side] = {}
        failed: dict[str, str] = {}
        described: dict[str, dict] = {}
        for name, python in pythons.items():
            side = Side(name, python, cores, log)
            stack.callback(side.close)
            try:
                described[name] = side.ask(
                    "prepare",
                    case=dataclasses.asdict(case),
                    weights=str(folder / "weights.npz"),
                    compiled=name == "torch_compiled",
                )
                start = time.perf_counter()
                side.ask("check", path=str(folder / f"{name}.npz"))
                tell(f"  {name}: compiled and run in {time.perf_counter() - start:.0f} s")
            except SideError as error:
                if name == OURS:
                    raise
                failed[name] = str(error)
                tell(f"  {error}")
                continue
            running[name] = side
        others = [name for name in running if name != OURS]
        # Without another side there is nothing to compare.
        kinks = _on_kinks(folder / f"{OURS}.npz", case) if others else np.zeros(case.batch, bool)
        if kinks.any():
            tell(
                f"  {kinks.sum()} of {case.batch} Grad-CAM maps lie on a kink and are not compared"
            )
        deviation = {
            name: _deviation(folder / f"{OURS}.npz", folder / f"{name}.npz", case, name, kinks)
            for name in others
        }
        result: dict = {
            "case": dataclasses.asdict(case),
            "sides": described,
            "failed": failed,
            "deviation": deviation,
            "kinks": int(kinks.sum()),
            "flops": running[OURS].ask("flops")["flops"],
            "tasks": {},
        }
        for task in tasks:
            result["tasks"][task] = _in_turns(running, task, rounds, seconds, failed, tell)
        for name, side in running.items():
            described[name]["memory"] = side.ask("memory")
        return result


def _in_turns(running: dict[str, Side], task: str, rounds, seconds, failed, tell) -> dict:
    """Side -> seconds an image and CPU seconds an image in every turn."""
    taking_part = {}
    measured: dict[str, dict] = {}
    for name, side in running.items():
        try:
            side.ask("warm", task=task)
        except SideError as error:
            if name == OURS:
                raise
            failed[f"{name}, {task}"] = str(error)
            continue
        taking_part[name] = side
        measured[name] = {"seconds": [], "cpu_seconds": []}
    for turn in range(1, rounds + 1):
        for name, side in taking_part.items():
            answer = side.ask("time", task=task, seconds=seconds)
            images = answer["images"]
            measured[name]["seconds"].append(answer["seconds"] / images)
            measured[name]["cpu_seconds"].append(answer["cpu_seconds"] / images)
            time.sleep(PAUSE)
        speeds = (f"{name} {1 / m['seconds'][-1]:.1f}" for name, m in measured.items())
        tell(f"  {task}, turn {turn} of {rounds}, images/s: {', '.join(speeds)}")
    return measured


def _deviation(
    ours: Path, theirs: Path, case: Case, name: str, kinks: np.ndarray
) -> dict[str, float]:
    """Relative deviation of each output, measured as `TOLERANCE` says.

    Of Grad-CAM maps, without those of the images (B,) that are on kinks.

    Raises:
      SideError: they are not the same network, or an output is not finite.
    """

    def size(x: np.ndarray) -> float:
        return float(np.abs(x).max() if case.dtype == "float32" else np.sqrt(np.mean(x * x)))

    with np.load(ours) as a, np.load(theirs) as b:
        for side, outputs in ((OURS, a), (name, b)):
            for key in outputs.files:
                # Nothing compares with one of these, so no tolerance would catch it.
                if not np.isfinite(outputs[key]).all():
                    raise SideError(f"{case.name}: {key} of {side} is not finite, nothing is timed")
        found = {}
        for key in a.files:
            if key != "grad_cam_moves":
                distance = a[key] - b[key]
                compared = distance[~kinks] if key == "grad_cam" else distance
                found[key] = size(compared) / max(size(a[key]), 1e-30)
    worst = max(found, key=lambda key: found[key])
    if not found[worst] <= TOLERANCE[case.dtype]:
        raise SideError(
            f"{case.name}: {worst} of {name} deviates by {found[worst]:.1e}: not the same network,"
            " nothing is timed"
        )
    return found


def _on_kinks(ours: Path, case: Case) -> np.ndarray:
    """Which images (B,) have a Grad-CAM map that roundings of their pixels move past `TOLERANCE`.

    The gradients in a map jump where an activation is 0 or two are the same. There two sides may be
    right and differ; ours shows it by differing from itself. In bfloat16 pixels cannot be moved by
    so little, so no moves are measured and no map is taken for one.

    Raises:
      SideError: more of them than `KINKS`; what is left would say little.
    """
    if case.dtype != "float32":
        return np.zeros(case.batch, bool)
    with np.load(ours) as a:
        kinks = a["grad_cam_moves"] > TOLERANCE[case.dtype] * np.abs(a["grad_cam"]).max()
    if kinks.mean() > KINKS:
        raise SideError(
            f"{case.name}: {kinks.sum()} of {len(kinks)} Grad-CAM maps move past the tolerance when"
            " pixels do so by a rounding, nothing is timed"
        )
    return kinks


def _use_cores(process: int, count: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(process, sorted(os.sched_getaffinity(0))[:count])


def has_torch(python: str) -> bool:
    """Whether an interpreter can import torch."""
    try:
        done = subprocess.run(
            [python, "-c", "import torch, numpy"], capture_output=True, timeout=300, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def this_python() -> str:
    """The interpreter of our side."""
    return sys.executable
