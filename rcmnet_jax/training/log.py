"""The log of a run: JSON lines, TensorBoard, a progress bar, curves."""

import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import jax
import tqdm

from rcmnet_jax.training.experiment import Experiment
from rcmnet_jax.training.saving import Progress
from rcmnet_jax.training.state import TrainState

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
SHOWN = (
    *("train_loss", "val_loss", "val_accuracy"),
    *("test_loss", "test_accuracy", "images_per_second"),
)
# Drawing takes as long as an epoch of the smallest runs.
SECONDS_BETWEEN_PLOTS = 10.0


def open_log(workdir: Path, log, **position: Any) -> "RunLog | SilentLog":
    """The log of a run: the first of its processes writes it, the others have a silent one."""
    return RunLog(workdir, log, **position) if jax.process_index() == 0 else SilentLog()


class SilentLog:
    """Has the methods of `RunLog` and writes nothing."""

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
            line = ", ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self._total_steps}: {line}", file=sys.stderr, flush=True)
        if kind == "epoch" and time.monotonic() - self._plotted_at >= SECONDS_BETWEEN_PLOTS:
            self.plot()

    def plot(self) -> None:
        """Draws ``curves.png``."""
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


def announce(
    experiment: Experiment, state: TrainState, progress: Progress, device: dict[str, Any]
) -> None:
    """Logs the device, the data, the network and the start of the run."""
    config, dataset, order = experiment.config, experiment.dataset, experiment.order
    kind = "synthetic images" if dataset.synthetic else "images"
    if progress.step:
        start = f"going on from step {progress.step}"
    elif config.init.checkpoint:
        start = f"from the weights of {config.init.checkpoint}"
    else:
        start = "from scratch"
    logger.info("device: %s x %d (%s)", device["backend"], device["count"], device["kind"])
    logger.info(
        "data: %s, %d %s, audit in %s", dataset.name, len(dataset), kind, dataset.audit_path
    )
    logger.info("%s", experiment.split.table())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    logger.info("model: %s, %d parameters", config.model.name, parameters)
    logger.info(
        "run: %d epochs of %d steps, batch %d, %s",
        config.train.epochs,
        order.steps_per_epoch,
        order.batch_size,
        start,
    )
    if progress.epoch < config.train.epochs:
        logger.info(
            "compiling the training step: %s at the first start, then kept for the next",
            "under a minute" if jax.default_backend() == "cpu" else "minutes",
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows written so far; a last line cut off by a kill is left out."""
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
    """An event file, written synchronously.

    tensorboardX's SummaryWriter writes in a thread behind a short queue; on a full disk the thread
    dies and the run waits forever for room in the queue.
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
