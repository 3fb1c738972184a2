"""What a run tells while it trains: JSON lines, TensorBoard, a progress bar, curves."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import tqdm

METRICS_FILE = "metrics.jsonl"
SHOWN = (
    *("train_loss", "val_loss", "val_accuracy"),
    *("test_loss", "test_accuracy", "images_per_second"),
)
# Drawing takes as long as an epoch of the smallest runs.
SECONDS_BETWEEN_PLOTS = 10.0


def open_log(workdir: Path, log, **position: Any) -> "RunLog | SilentLog":
    """The log of a run; one of its processes writes it, the others have a silent one."""
    return RunLog(workdir, log, **position) if jax.process_index() == 0 else SilentLog()


class SilentLog:
    """Takes what a `RunLog` takes, and tells nobody."""

    def step(self, step: int) -> None: ...

    def images_per_second(self, step: int) -> float:
        return 0.0

    def write(self, kind: str, step: int, epoch: float, values: dict[str, Any]) -> None: ...

    def plot(self) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """Metrics of one run, in ``metrics.jsonl`` and TensorBoard files, and a progress bar.

    A row has ``kind`` (step or epoch), ``step``, ``epoch`` and the values. Rows of steps after
    the checkpoint that a run resumes from are dropped, since the run writes them again.

    Args:
      workdir: where the files go.
      log: the config group ``log``.
      start_step: where the run goes on from.
      total_steps: of the whole run.
      batch_size: to turn steps into images a second.
      synthetic: say so in the figures.
    """

    def __init__(
        self,
        workdir: Path,
        log,
        *,
        start_step: int,
        total_steps: int,
        batch_size: int,
        synthetic: bool = False,
    ):
        self._workdir, self._synthetic = workdir, synthetic
        self._plots = log.plots
        self._plotted_at = -SECONDS_BETWEEN_PLOTS
        self._batch_size = batch_size
        self._path = workdir / METRICS_FILE
        self.rows = [row for row in read_rows(self._path) if row["step"] <= start_step]
        self._rewrite()
        self._file = self._path.open("a")
        self._writer = _TensorBoard(workdir, start_step) if log.tensorboard else None
        terminal = sys.stderr.isatty()
        # A bar in a log file is thousands of lines; there an epoch is one.
        self._lines = log.progress and not terminal
        self._total_steps = total_steps
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=start_step,
            unit="step",
            disable=not (log.progress and terminal),
            dynamic_ncols=True,
            smoothing=0.05,
        )
        self._shown: dict[str, str] = {}
        self._clock = time.perf_counter()
        self._clock_step = start_step

    def step(self, step: int) -> None:
        """Moves the bar to a step."""
        if not self._bar.disable:
            self._bar.update(step - self._bar.n)

    def images_per_second(self, step: int) -> float:
        """Training speed since this was last asked, evaluation and saving included."""
        now = time.perf_counter()
        rate = (step - self._clock_step) * self._batch_size / max(now - self._clock, 1e-9)
        self._clock, self._clock_step = now, step
        return rate

    def write(self, kind: str, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Adds a row, and shows its main values beside the bar."""
        row = {"kind": kind, "step": step, "epoch": epoch, **values}
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer is not None:
            self._writer.write(step, values)
        for name, value in values.items():
            if name in SHOWN:
                self._shown[name] = (
                    f"{value:.0f}" if name == "images_per_second" else f"{value:.4f}"
                )
        shown = {"epoch": f"{epoch:.1f}", **self._shown}
        self._bar.set_postfix(shown)
        if kind == "epoch" and self._lines:
            told = ", ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self._total_steps}: {told}", file=sys.stderr, flush=True)
        if kind == "epoch" and time.monotonic() - self._plotted_at >= SECONDS_BETWEEN_PLOTS:
            self.plot()

    def plot(self) -> None:
        """Draws ``curves.png``; done now and then while training, and at its end."""
        if self._plots and self.epoch_rows:
            # Here, since loading matplotlib would hold up the first step by half a second.
            from rcmnet_jax.evaluation.training_curves import plot_curves

            plot_curves(self.epoch_rows, self._workdir / "curves.png", synthetic=self._synthetic)
            self._plotted_at = time.monotonic()

    @property
    def epoch_rows(self) -> list[dict[str, Any]]:
        """The rows at the ends of epochs."""
        return [row for row in self.rows if row["kind"] == "epoch"]

    def close(self) -> None:
        """Closes bar and files."""
        with contextlib.ExitStack() as stack:
            # Each, even where a full disk fails another.
            for part in filter(None, (self._writer, self._file, self._bar)):
                stack.callback(part.close)

    def _rewrite(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        temporary.replace(self._path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an earlier part of the run; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"kind", "step", "epoch"} <= row.keys():
            rows.append(row)
    return rows


class _TensorBoard:
    """An event file, written here and now.

    tensorboardX's SummaryWriter writes in a thread behind a short queue; on a full disk the thread
    dies and the run waits for room in the queue for ever.
    """

    def __init__(self, workdir: Path, start_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        directory = workdir / "tensorboard"
        directory.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(directory / "events"))
        # Events from this step on are hidden by TensorBoard: the run writes them again.
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=start_step + 1, session_log=start))

    def write(self, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            summary = self._scalar(name, value)
            self._writer.write_event(self._event(step=step, wall_time=time.time(), summary=summary))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
