"""Seconds of imports and to the first step of a run, with an empty and a filled compile cache."""

import dataclasses
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.cases import OURS, Case
from benchmarks.turns import ROOT, Side, SideError, this_python

IMPORTS = ("rcmnet_jax", "rcmnet_jax.cli.main", "rcmnet_jax.training.loop")


def measure_startup(pythons: dict[str, str], size: int, log: Path) -> dict[str, str]:
    """What was timed -> seconds, ready to print."""
    measured = {}
    for module in IMPORTS:
        measured[f"import {module}"] = _import_seconds(this_python(), module)
    for name, python in pythons.items():
        if name == "torch_eager":
            measured["import torch"] = _import_seconds(python, "torch")
    with tempfile.TemporaryDirectory() as folder:
        measured |= _first_steps(pythons, size, Path(folder), log)
        measured |= _train_starts(size, Path(folder))
    return {name: f"{seconds:.2f} s" for name, seconds in measured.items()}


def _import_seconds(python: str, module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    times = []
    for _ in range(3):
        done = subprocess.run(
            [python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
    return statistics.median(times)


def _first_steps(pythons, size: int, folder: Path, log: Path) -> dict[str, float]:
    """From the start of the process to the end of the first training step, on random images."""
    case = dataclasses.asdict(Case("rcmnet", size, 32))
    measured = {}
    for name, python in pythons.items():
        caches = {
            "RCMNET_COMPILE_CACHE": str(folder / "xla"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        }
        for state in ("cold", "warm"):
            before = {key: os.environ.get(key) for key in (*caches, "JAX_COMPILATION_CACHE_DIR")}
            os.environ.update(caches)
            os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
            start = time.perf_counter()
            side = Side(name, python, 0, log)
            try:
                weights = str(folder / "weights.npz")
                side.ask("prepare", case=case, weights=weights, compiled=name == "torch_compiled")
                side.ask("first", task="train")
                measured[f"{name}, network and first step, {state}"] = time.perf_counter() - start
            except SideError:
                if name == OURS:
                    raise
            finally:
                side.close()
                _restore(before)
    return measured


def _train_starts(size: int, folder: Path) -> dict[str, float]:
    """`train.py` on synthetic cells until the first step is in its log; the data set is built."""
    measured = {}
    for number, state in enumerate(("", "cold", "warm")):
        # The first builds the data set, with a compile cache of its own.
        cache = folder / ("other_xla" if not state else "train_xla")
        seconds = _until_first_step(size, folder, folder / f"run{number}", cache)
        if state:
            measured[f"train.py, rcmnet at {size} pixels, to the first step, {state}"] = seconds
    return measured


def _until_first_step(size: int, folder: Path, workdir: Path, cache: Path) -> float:
    command = [
        *(this_python(), "train.py", f"--config=configs/synthetic.py:size={size},per_class=16"),
        *(f"--workdir={workdir}", "--config.log.every_steps=1", "--config.log.progress=false"),
    ]
    environment = {
        **os.environ,
        "RCMNET_DATA_DIR": str(folder / "data"),
        "RCMNET_COMPILE_CACHE": str(cache),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    rows = workdir / "metrics.jsonl"
    try:
        while not (rows.exists() and rows.stat().st_size):
            if process.poll() is not None:
                assert process.stderr
                raise SideError(f"train.py ended: {process.stderr.read().decode()[-200:]}")
            time.sleep(0.01)
        return time.perf_counter() - start
    finally:
        process.kill()
        process.communicate()


def _restore(before: dict[str, str | None]) -> None:
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
