"""The training run: prepare, restore, feed, epochs, and one scoring of the test part at the end.

A run is a pure function of its config and data. Batches depend on seed and step, randomness on
seed and step, and dispatches start at multiples of their length within an epoch, so a run that is
killed and started again goes through the same compiled calls as one that was not.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from rcmnet_jax.checkpoints.provenance import collect_provenance
from rcmnet_jax.data.splits import write_split_csv
from rcmnet_jax.errors import TrainingError
from rcmnet_jax.hosts.mesh import put_replicated
from rcmnet_jax.hosts.stop import StopRequest
from rcmnet_jax.training.experiment import Experiment, build_experiment
from rcmnet_jax.training.feed import Feed
from rcmnet_jax.training.frozen import frozen_features
from rcmnet_jax.training.log import RunLog, SilentLog, announce, open_log
from rcmnet_jax.training.resume import restore_or_init, saved_record
from rcmnet_jax.training.saving import Progress, Saver
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.training.steps import StepConfig, compile_step
from rcmnet_jax.training.validation import Scorer, is_better
from rcmnet_jax.workdir.config_file import require_same_config, require_same_processes, write_config
from rcmnet_jax.workdir.disk_errors import disk_errors_as_user_errors
from rcmnet_jax.workdir.lock import locked_workdir

# On the features of a frozen backbone an epoch takes less time than its checkpoint.
SECONDS_BETWEEN_SAVES = 20.0


class Interrupted(Exception):
    """The scheduler asked the run to stop (SIGTERM); its state is saved."""


def train(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains, or resumes, the run of a config in a folder.

    Args:
      config: as ``configs/*.py`` return it.
      workdir: gets config.json, split.csv, metrics.jsonl, curves.png, checkpoints/ and, at the
        end, the test scores.

    Returns:
      ``best`` (metric, value, step, epoch), ``steps`` and, if scored, ``test`` as in
      test_metrics.json.

    Raises:
      UserError: anything in config, data or folder that the user can mend; see `rcmnet_jax.errors`.
      Interrupted: on SIGTERM, after saving.
    """
    workdir = Path(workdir).absolute()
    with (
        locked_workdir(workdir),
        disk_errors_as_user_errors(workdir),
        contextlib.ExitStack() as resources,
    ):
        require_same_config(config, workdir)
        require_same_processes(config)
        experiment = build_experiment(config, saved=saved_record(workdir))
        meta = {**experiment.describe(), "provenance": collect_provenance()}
        saver = Saver(workdir / "checkpoints", keep=config.checkpoint.keep, resources=resources)
        state, progress = restore_or_init(experiment, saver.last, meta, workdir)
        saver.best.drop_after(progress.step)
        finished = progress.epoch >= config.train.epochs
        features = None if finished else frozen_features(experiment, state.eval_variables)
        feed = Feed(experiment, features.train if features else None)
        scorer = Scorer(experiment, workdir, features.watched if features else None)
        log = resources.enter_context(
            contextlib.closing(
                open_log(
                    workdir,
                    config.log,
                    start_step=progress.step,
                    total_steps=experiment.total_steps,
                    batch_size=experiment.order.batch_size,
                    synthetic=experiment.dataset.synthetic,
                )
            )
        )
        # Only now: a config that turned out to be wrong must not bind the folder.
        if jax.process_index() == 0:
            write_config(config, workdir)
            write_split_csv(experiment.split, workdir / "split.csv")
            announce(experiment, state, progress, meta["provenance"]["device"])
        epochs = Epochs(experiment, feed, scorer, saver, log, meta)
        epochs.save_seconds = SECONDS_BETWEEN_SAVES if features else 0.0
        epochs.run(state, progress)
        summary: dict[str, Any] = {"best": progress.best, "steps": progress.step}
        if config.eval.test_at_end and len(experiment.split.indices("test")):
            summary["test"] = scorer.write_test(saver.best)
        return summary


class Epochs:
    """The epochs of one run: training, validation, checkpoints and log.

    Args:
      experiment: what to train.
      feed: delivers the batches.
      scorer: scores the validation part.
      saver: writes checkpoints.
      log: takes the metrics.
      meta: the record of every checkpoint.

    Attributes:
      save_seconds: least time between two checkpoints at the ends of epochs.
    """

    def __init__(
        self,
        experiment: Experiment,
        feed: Feed,
        scorer: Scorer,
        saver: Saver,
        log: RunLog | SilentLog,
        meta: dict[str, Any],
    ):
        self._experiment, self._config, self._meta = experiment, experiment.config, meta
        self._feed, self._scorer, self._saver, self._log = feed, scorer, saver, log
        self.save_seconds = 0.0
        self._stop = StopRequest()
        self._steps: dict[StepConfig, Callable] = {}
        self._key = put_replicated(jax.random.key(self._config.seed), experiment.mesh)
        self._inputs = put_replicated(experiment.step_inputs, experiment.mesh)
        # Of all steps at once: asked for one by one, each would wait for the step that runs.
        rates_of = jax.jit(jax.vmap(experiment.schedule))
        self._learning_rates = np.asarray(rates_of(np.arange(experiment.total_steps)))

    def run(self, state: TrainState, progress: Progress) -> None:
        """Trains to the end, saving the state and the progress, which is updated in place.

        Raises:
          Interrupted: on SIGTERM, after saving.
          TrainingError: loss or gradients that are not finite.
        """
        patience = self._config.train.early_stop
        with self._stop.by_sigterm():
            while progress.epoch < self._config.train.epochs and not (
                patience and progress.epochs_without_better >= patience
            ):
                if self._stop.made:
                    self._interrupt(state, progress)
                state = self._train_epoch(state, progress)
                self._validate(state, progress)
                if self._saver.is_due(self.save_seconds):
                    self._saver.save(state, progress, self._meta)
            self._saver.finish(state, progress, self._meta)
        self._log.plot()

    def _train_epoch(self, state: TrainState, progress: Progress) -> TrainState:
        """The rest of the running epoch."""
        stop = (progress.epoch + 1) * self._experiment.order.steps_per_epoch
        step = self._compiled_step(progress.epoch)
        pending: dict[str, jax.Array] = {}
        for count, arguments in self._feed.dispatches(progress.step, stop):
            rates = self._rates(progress.step)
            inputs = dataclasses.replace(self._inputs, learning_rate=rates)
            # Nothing may be copied to or from the device by accident in here.
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, *arguments, self._key, inputs)
            # The previous dispatch's metrics are fetched while this one runs.
            self._account(pending, progress)
            pending = metrics
            progress.step += count
            self._stop.look()
            within = progress.step < stop
            every = self._config.checkpoint.every_steps
            saves = within and every and progress.step % every == 0
            if saves or (within and self._stop.made):
                self._account(pending, progress)
                pending = {}
            if saves:
                self._saver.save(state, progress, self._meta)
            # At its end the epoch is finished first, so that a checkpoint is within or between.
            if within and self._stop.made:
                self._interrupt(state, progress)
        self._account(pending, progress)
        return state

    def _compiled_step(self, epoch: int) -> Callable:
        """One program for the whole run, or for each stage of gradual unfreezing."""
        config = self._experiment.step_config_at(epoch)
        if config not in self._steps:
            mesh, on_device = self._experiment.mesh, self._feed.on_device
            self._steps[config] = compile_step(config, mesh, on_device=on_device)
        return self._steps[config]

    def _rates(self, step: int) -> jax.Array:
        """Learning rates of the next call: () for a single step, else (S,)."""
        if not self._feed.on_device:
            return put_replicated(self._learning_rates[step], self._experiment.mesh)
        rates_S = self._learning_rates[step : step + self._feed.chunk]
        padded = np.pad(rates_S, (0, self._feed.chunk - len(rates_S)))
        return put_replicated(padded, self._experiment.mesh)

    def _account(self, metrics: dict[str, jax.Array], progress: Progress) -> None:
        """Adds the metrics of finished steps to the epoch's sums and logs some."""
        if not metrics:
            return
        values = {name: np.atleast_1d(np.asarray(value)) for name, value in metrics.items()}
        batch = self._experiment.order.batch_size
        # The last call of an epoch may have taken fewer steps than it has room for.
        for row in range(min(len(values["loss"]), progress.step - progress.accounted)):
            loss, correct, norm = (
                values[name][row].item() for name in ("loss", "correct", "gradient_norm")
            )
            step = progress.accounted + 1
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._refuse_non_finite(step, loss, norm)
            progress.add(loss=loss, correct=correct, batch=batch)
            if step % self._config.log.every_steps == 0:
                entry = {
                    "train_loss": loss,
                    "train_accuracy": correct / batch,
                    "gradient_norm": norm,
                    "learning_rate": float(self._learning_rates[step - 1]),
                }
                self._log.write("step", step, step / self._experiment.order.steps_per_epoch, entry)
        self._log.step(progress.accounted)

    def _validate(self, state: TrainState, progress: Progress) -> None:
        """Ends the epoch: scores the watched part, remembers the best weights, logs."""
        watch, metric = self._config.eval.watch, self._config.eval.metric
        scores = self._scorer.score(state, watch)
        row = {
            **progress.epoch_means(),
            **{f"{watch}_{name}": value for name, value in scores.items()},
            "learning_rate": float(self._learning_rates[progress.step - 1]),
            "images_per_second": self._log.images_per_second(progress.step),
        }
        value = scores.get(metric)
        progress.end_epoch()
        if value is None or is_better(metric, value, progress.best):
            progress.best = {
                "metric": metric,
                "value": value,
                "step": progress.step,
                "epoch": progress.epoch,
            }
            progress.epochs_without_better = 0
            meta = {**self._meta, "best": progress.best, watch: scores}
            self._saver.remember_best(progress.step, state.eval_variables, meta)
        else:
            progress.epochs_without_better += 1
        self._log.write("epoch", progress.step, float(progress.epoch), row)

    def _interrupt(self, state: TrainState, progress: Progress) -> None:
        self._saver.finish(state, progress, self._meta)
        raise Interrupted(
            f"stopped at step {progress.step} as asked; run the same command to go on"
        )

    def _refuse_non_finite(self, step: int, loss: float, norm: float) -> None:
        self._saver.last.wait()
        steps = self._saver.last.steps
        kept = f"checkpoint of step {steps[-1]} is kept" if steps else "no checkpoint yet"
        raise TrainingError(
            f"loss {loss:g} and gradient norm {norm:g} at step {step} are not finite ({kept}):"
            " use a smaller optim.learning_rate, a longer optim.warmup_epochs or"
            " optim.clip_norm=1, in a new --workdir"
        )
