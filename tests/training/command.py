"""Real ``train.py`` processes, to be killed, terminated and looked at."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.training.runs import last_digest, rows_of

ROOT = Path(__file__).parents[2]
EPOCHS = 4
STEPS = 5 * EPOCHS


class Command:
    """``python train.py`` on the tests' experiment, on one device as most users have it."""

    def __init__(self, source: Path):
        self.source = source

    def start(self, workdir: Path, *extra: str) -> subprocess.Popen:
        command = [
            *(sys.executable, "train.py"),
            f"--config=tests/training/tiny_config.py:model=resnet18,size=32,epochs={EPOCHS}",
            f"--workdir={workdir}",
            f"--config.data.source={self.source}",
            "--config.optim.ema=0.9",
            "--config.checkpoint.every_steps=3",
            *extra,
        ]
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, workdir: Path, *extra: str) -> tuple[int, str, str]:
        process = self.start(workdir, *extra)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


def assert_calm(err: str) -> None:
    """What the run tells about itself, without warnings, tracebacks and bars for no terminal."""
    assert not any(word in err for word in ("Traceback", "WARNING", "Warning", "ERROR", "\r")), err


def error_line(err: str) -> str:
    """The one line that says what to mend, behind what the run told before."""
    *before, line = err.splitlines()
    assert line.startswith("error: ")
    assert_calm(err)
    assert "error: " not in "\n".join(before)
    return line


def signal_after(process: subprocess.Popen, workdir: Path, rows: int, number: int) -> None:
    """Sends a signal once so many metrics rows are written."""
    path = workdir / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_text().count("\n") >= rows:
            process.send_signal(number)
            return
        time.sleep(0.002)


def assert_same_run(workdir: Path, straight: Path) -> None:
    assert last_digest(workdir) == last_digest(straight)
    mine, theirs = (
        [{name: v for name, v in row.items() if name != "images_per_second"} for row in rows_of(d)]
        for d in (workdir, straight)
    )
    assert mine == theirs
    assert best_step(workdir) == best_step(straight)


def best_step(workdir: Path) -> int:
    return max(int(path.name) for path in (workdir / "checkpoints" / "best").iterdir())
