"""Settings of all tests, made before anything imports jax, and the small folder that runs train on.

One CPU device, as most users have; a test marked `two_devices` runs in a process that has two. A
third of the optimiser's effort, since most tests compile more than they compute:
tests/test_as_users_run.py has all of it. Silent rank promotion is an error. The compile cache
outlives the session (delete the folder when in doubt); prepared data lie in the session's folder.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("RCMNET_COMPILE_CACHE", str(Path(tempfile.gettempdir(), "rcmnet_test_xla")))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ["RCMNET_COMPILE_CACHE"])
# Tiny networks compile in less than the half second that the library would not store.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
from PIL import Image

COLOURS = {"blue": (90, 110, 190), "pink": (200, 120, 170), "pale": (215, 205, 190)}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test marked `two_devices` in a process with two CPU devices."""
    if pyfuncitem.get_closest_marker("two_devices") is None:
        return None
    if os.environ["JAX_NUM_CPU_DEVICES"] != "1":
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", pyfuncitem.nodeid]
    done = subprocess.run(
        command,
        cwd=pyfuncitem.config.rootpath,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True,
        text=True,
    )
    if done.returncode or "1 passed" not in done.stdout:
        pytest.fail(f"with two devices:\n{done.stdout}{done.stderr}", pytrace=False)
    return True


@pytest.fixture(scope="session", autouse=True)
def _data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where data sets are built, for this process and those that it starts."""
    directory = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCMNET_DATA_DIR", str(directory))
        yield directory


def write_cells(root: Path, *, per_class: int, size: int = 32, seed: int = 0) -> Path:
    """Class folders of noisy discs, one colour a class: easy to learn, no two files alike."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            y, x, radius = rng.uniform(0.35, 0.65, 3) * (size, size, 0.6 * size)
            disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            image = np.where(disc[..., None], colour, (235, 230, 225))
            image = np.clip(image + rng.normal(0, 8, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / name / f"{name}_{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def write_cell_folder() -> Callable[..., Path]:
    """`write_cells`."""
    return write_cells


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty 32x32 images: 45 to train on, 3 to validate, 12 to test."""
    return write_cells(tmp_path_factory.mktemp("source") / "cells", per_class=20)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``small_disk(kilobytes=64)``: an empty folder on a disk of its own that fills up."""
    mounted: list[Path] = []

    def mount(kilobytes: int, at: Path | None = None) -> Path:
        directory = at or tmp_path / "disk"
        directory.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(directory)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small disk takes root")
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", str(directory)], check=True, capture_output=True)
