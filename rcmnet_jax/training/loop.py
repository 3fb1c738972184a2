"""The training run: build, restore, epochs, and one scoring of the test part at the end.

A run is a pure function of its config and data. Batches depend on seed and step, randomness on
seed and step, and dispatches start at multiples of their length within an epoch, so a run that is
killed and started again goes through the same compiled calls as one that was not.
"""

import contextlib
import dataclasses
import logging
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
from rcmnet_jax.hosts.mesh import put_replicated, replicated
from rcmnet_jax.hosts.stop import StopRequest
from rcmnet_jax.training.experiment import Experiment, build_experiment
from rcmnet_jax.training.feed import Feed
from rcmnet_jax.training.frozen import frozen_features
from rcmnet_jax.training.log import open_log
from rcmnet_jax.training.resume import restore_or_init
from rcmnet_jax.training.saving import Saver
from rcmnet_jax.training.steps import Recipe, train_step, train_steps_on_device
from rcmnet_jax.training.validation import Scorer, is_better
from rcmnet_jax.workdir.config_file import require_same_config, require_same_processes, write_config
from rcmnet_jax.workdir.disk_errors import disk_errors_as_user_errors
from rcmnet_jax.workdir.lock import locked_workdir

logger = logging.getLogger(__name__)

# On the features of a frozen backbone an epoch takes less time than its checkpoint.
SECONDS_BETWEEN_SAVES = 20.0


class Interrupted(Exception):
    """The scheduler asked the run to stop (SIGTERM); its state is saved."""


def train(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains, or goes on with, the run of a config in a folder.

    Args:
      config: as ``configs/*.py`` return it.
      workdir: gets config.json, split.csv, metrics.jsonl, curves.png, checkpoints/ and, at the
        end, the test scores.

    Returns:
      ``best`` (metric, value, step, epoch) and, if scored, ``test`` as in test_metrics.json.

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
        run = Run(build_experiment(config), workdir, resources)
        # Only now: a config that turned out to be wrong must not bind the folder.
        if jax.process_index() == 0:
            write_config(config, workdir)
            write_split_csv(run.experiment.split, workdir / "split.csv")
            run.announce()
        return run.finish()


class Run:
    """One run in its folder, from restoring to the test scores.

    Args:
      experiment: what to train.
      workdir: where to keep it.
      resources: closes the files and threads of the run, however it ends.
    """

    def __init__(self, experiment: Experiment, workdir: Path, resources: contextlib.ExitStack):
        self.experiment, self.workdir, self.config = experiment, workdir, experiment.config
        self.meta = {**experiment.describe(), "provenance": collect_provenance()}
        self.saver = Saver(
            workdir / "checkpoints", keep=self.config.checkpoint.keep, resources=resources
        )
        self._steps: dict[Recipe, Callable] = {}
        self.state, self.progress = restore_or_init(experiment, self.saver.last, self.meta, workdir)
        self.saver.best.drop_after(self.progress.step)
        finished = self.progress.epoch >= self.config.train.epochs
        features = None if finished else frozen_features(experiment, self.state.eval_variables)
        self._save_seconds = 0.0 if features is None else SECONDS_BETWEEN_SAVES
        self.scorer = Scorer(experiment, workdir, features.watched if features else None)
        self.feed = Feed(experiment, features.train if features else None)
        self.key = put_replicated(jax.random.key(self.config.seed), experiment.mesh)
        self._statistics = put_replicated(experiment.recipe.statistics, experiment.mesh)
        # Of all steps at once: asked for one by one, each would wait for the step that runs.
        rates_of = jax.jit(jax.vmap(experiment.schedule))
        self._learning_rates = np.asarray(rates_of(np.arange(experiment.total_steps)))
        self.log = resources.enter_context(
            contextlib.closing(
                open_log(
                    workdir,
                    self.config.log,
                    start_step=self.progress.step,
                    total_steps=experiment.total_steps,
                    batch_size=experiment.order.batch_size,
                    synthetic=experiment.dataset.synthetic,
                )
            )
        )
        self._stop = StopRequest()

    def _prepare_step(self, recipe: Recipe, on_device: bool) -> Callable:
        """The donated, compiled step: one for the whole run, or for each stage of unfreezing."""
        if recipe not in self._steps:
            kind = train_steps_on_device if on_device else train_step

            def step(state, *arguments):
                *others, given = arguments
                return kind(state, *others, recipe=dataclasses.replace(recipe, **given))

            # Said, so that a restored state is placed as a trained one and compiles the same.
            shardings = replicated(self.experiment.mesh)
            self._steps[recipe] = jax.jit(step, donate_argnums=0, out_shardings=shardings)
        return self._steps[recipe]

    def announce(self) -> None:
        """Says on what, with what and from where the run goes."""
        experiment, device = self.experiment, self.meta["provenance"]["device"]
        dataset, order = experiment.dataset, experiment.order
        weights = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        kind = "synthetic images" if dataset.synthetic else "images"
        logger.info("device: %s x %d (%s)", device["backend"], device["count"], device["kind"])
        logger.info(
            "data: %s, %d %s, audit in %s", dataset.name, len(dataset), kind, dataset.audit_path
        )
        logger.info("%s", experiment.split.table())
        logger.info("model: %s, %d parameters", self.config.model.name, weights)
        logger.info(
            "run: %d epochs of %d steps, batch %d, %s",
            self.config.train.epochs,
            order.steps_per_epoch,
            order.batch_size,
            self._begins(),
        )
        if jax.default_backend() != "cpu" and self.progress.epoch < self.config.train.epochs:
            # XLA times many kernels there, and the bar stands still meanwhile.
            logger.info("compiling: minutes at the first start, then kept for the next")

    def _begins(self) -> str:
        if self.progress.step:
            return f"going on from step {self.progress.step}"
        given = self.config.init.checkpoint
        return f"from the weights of {given}" if given else "from scratch"

    def finish(self) -> dict[str, Any]:
        """Trains to the end and scores."""
        with self._stop.by_sigterm():
            epochs = self.config.train.epochs
            while self.progress.epoch < epochs and not self._out_of_patience():
                if self._stop.made:
                    self._interrupt()
                self._epoch()
            self.saver.finish(self.state, self.progress, self.meta)
        self.log.plot()
        return self._summary()

    def _epoch(self) -> None:
        """The rest of the running epoch, its validation and its checkpoint."""
        steps_per_epoch = self.experiment.order.steps_per_epoch
        stop = (self.progress.epoch + 1) * steps_per_epoch
        recipe = self.experiment.recipe_of_epoch(self.progress.epoch)
        compiled_step = self._prepare_step(recipe, self.feed.on_device)
        pending: dict[str, jax.Array] | None = None
        for count, arguments in self.feed.dispatches(self.progress.step, stop):
            given = self._given(count)
            # Nothing may be copied to or from the device by accident in here.
            with jax.transfer_guard("disallow"):
                self.state, metrics = compiled_step(self.state, *arguments, self.key, given)
            # The previous dispatch's metrics are fetched while this one runs.
            if pending is not None:
                self._account(pending)
            pending = metrics
            self.progress.step += count
            self._stop.look()
            if self._save_is_due(stop):
                self._account(pending)
                pending = None
                self._save()
            # At its end the epoch is finished first, so that a checkpoint is within or between.
            if self._stop.made and self.progress.step < stop:
                if pending is not None:
                    self._account(pending)
                self._interrupt()
        if pending is not None:
            self._account(pending)
        self._end_epoch()

    def _given(self, count: int) -> dict[str, jax.Array]:
        """What the next steps' recipe is given: the data's statistics and the learning rates."""
        rates_S = self._learning_rates[self.progress.step :][:count]
        rates = put_replicated(rates_S if self.feed.on_device else rates_S[0], self.experiment.mesh)
        return {**self._statistics, "learning_rate": rates}

    def _account(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of finished steps to the epoch's sums and logs some."""
        values = {name: np.atleast_1d(np.asarray(value)) for name, value in metrics.items()}
        batch = self.experiment.order.batch_size
        for loss, correct, norm in zip(
            values["loss"], values["correct"], values["gradient_norm"], strict=True
        ):
            step = self.progress.accounted + 1
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._refuse_non_finite(step, loss, norm)
            self.progress.add(loss=float(loss), correct=int(correct), batch=batch)
            if step % self.config.log.every_steps == 0:
                row = {
                    "train_loss": float(loss),
                    "train_accuracy": float(correct) / batch,
                    "gradient_norm": float(norm),
                    "learning_rate": float(self._learning_rates[step - 1]),
                }
                self.log.write("step", step, step / self.experiment.order.steps_per_epoch, row)
        self.log.step(self.progress.accounted)

    def _end_epoch(self) -> None:
        scores = self.scorer.score(self.state, self.config.eval.watch)
        epoch = self.progress.epoch + 1
        row = {
            **self.progress.epoch_means(),
            **{f"{self.config.eval.watch}_{name}": value for name, value in scores.items()},
            "learning_rate": float(self._learning_rates[self.progress.step - 1]),
            "images_per_second": self.log.images_per_second(self.progress.step),
        }
        metric = self.config.eval.metric
        value = scores.get(metric)
        self.progress.end_epoch()
        if value is None or is_better(metric, value, self.progress.best):
            self.progress.best = {
                "metric": metric,
                "value": value,
                "step": self.progress.step,
                "epoch": epoch,
            }
            self.progress.epochs_without_better = 0
            best_meta = {**self.meta, "best": self.progress.best, self.config.eval.watch: scores}
            self.saver.remember_best(self.progress.step, self.state.eval_variables, best_meta)
        else:
            self.progress.epochs_without_better += 1
        self.log.write("epoch", self.progress.step, float(epoch), row)
        if self.saver.is_due(self._save_seconds):
            self._save()

    def _save(self) -> None:
        self.saver.save(self.state, self.progress, self.meta)

    def _save_is_due(self, epoch_end: int) -> bool:
        every = self.config.checkpoint.every_steps
        return bool(every) and self.progress.step % every == 0 and self.progress.step != epoch_end

    def _interrupt(self) -> None:
        self.saver.finish(self.state, self.progress, self.meta)
        raise Interrupted(
            f"stopped at step {self.progress.step} as asked; run the same command to go on"
        )

    def _refuse_non_finite(self, step: int, loss: float, norm: float) -> None:
        self.saver.last.wait()
        kept = self.saver.last.steps[-1] if self.saver.last.steps else None
        raise TrainingError(
            f"loss {loss:g} and gradient norm {norm:g} at step {step} are not finite"
            f" ({f'checkpoint of step {kept} is kept' if kept else 'no checkpoint yet'}):"
            " use a smaller optim.learning_rate, a longer optim.warmup_epochs or"
            " optim.clip_norm=1, in a new --workdir"
        )

    def _out_of_patience(self) -> bool:
        patience = self.config.train.early_stop
        return bool(patience) and self.progress.epochs_without_better >= patience

    def _summary(self) -> dict[str, Any]:
        """Scores the test part once, with the best weights."""
        summary: dict[str, Any] = {"best": self.progress.best, "steps": self.progress.step}
        if self.config.eval.test_at_end and len(self.experiment.split.indices("test")):
            summary["test"] = self.scorer.write_test(self.saver.best)
        return summary
