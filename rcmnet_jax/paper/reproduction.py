"""``rcmnet reproduce``: plan, estimate, train what is missing, and write the report."""

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from rcmnet_jax.errors import ConfigError, TrainingError, UserError
from rcmnet_jax.paper.collect import collect
from rcmnet_jax.paper.estimate import estimate_seconds, format_duration, seconds_per_image
from rcmnet_jax.paper.pages import write_pages
from rcmnet_jax.paper.plan import (
    PROTOCOLS,
    PlannedRun,
    ReproductionSettings,
    find_configs,
    make_plan,
    write_plan,
)
from rcmnet_jax.training.inputs import open_dataset, split_dataset
from rcmnet_jax.training.loop import train

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Runs of a reproduction that are not done.

    Attributes:
      failed: a line for each run that failed; the others are done and in the report.
      left: titles of the runs that did not fit into the hours.
    """

    failed: list[str]
    left: list[str]


def reproduce(settings: ReproductionSettings) -> Outcome:
    """Trains the runs that are not done yet and writes the report after each.

    Args:
      settings: what to reproduce.

    Raises:
      UserError: settings, images or folders cannot be used.
    """
    start = time.monotonic()
    _check(settings)
    runs = make_plan(settings, find_configs())
    done = [run.is_done() for run in runs]
    seconds = _show_plan(settings, runs, done)
    if settings.dry_run:
        return Outcome([], [])
    write_plan(settings, runs)
    failed: list[str] = []
    left: dict[Path, str] = {}
    end = math.inf if settings.hours is None else start + 3600 * settings.hours
    for number, run in enumerate(runs):
        if done[number]:
            continue
        if time.monotonic() + seconds.get(number, 0.0) > end:
            left[run.workdir] = run.title
            continue
        if run.source in left:
            left[run.workdir] = f"{run.title} (starts from a run that is left)"
            continue
        if run.source is not None and not (run.source / "test_metrics.json").exists():
            failed.append(f"{run.title}: the run whose weights it starts from failed")
            continue
        rest = sum(value for n, value in seconds.items() if n >= number and not done[n])
        estimate = f", about {format_duration(rest)} for the rest of the plan" if seconds else ""
        logger.info("run %d of %d: %s%s", number + 1, len(runs), run.title, estimate)
        _train(run, f"run {number + 1} of {len(runs)}", failed)
        # After each run, so that an interrupted reproduction has a report.
        write_pages(settings, runs, collect(runs), failed, figures=False)
    write_pages(settings, runs, collect(runs), failed, figures=True)
    return Outcome(failed, list(left.values()))


def _check(settings: ReproductionSettings) -> None:
    if settings.quick and (settings.pbc or settings.cart):
        raise ConfigError("--quick draws its cells: leave out --pbc and --cart")
    if not settings.quick and not settings.pbc:
        raise ConfigError("--pbc is missing: give the folder of the PBC images, or --quick")
    unknown = sorted(set(settings.protocols) - set(PROTOCOLS))
    if unknown or not settings.protocols:
        raise ConfigError(f"protocols are {' and '.join(PROTOCOLS)}, not {unknown}")
    if settings.hours is not None and not settings.hours > 0:
        raise ConfigError(f"--hours must be more than 0, got {settings.hours:g}")


def _train(run: PlannedRun, place: str, failed: list[str]) -> None:
    """Trains one run; its failure does not keep the others from being trained."""
    start = time.monotonic()
    try:
        accuracy = train(run.config, run.workdir)["test"]["accuracy"]
    except TrainingError as error:
        failed.append(f"{run.title}: {error}")
        logger.error("%s failed: %s", place, error)
        return
    duration = format_duration(time.monotonic() - start)
    logger.info("%s done: %d/%d in %s", place, accuracy["k"], accuracy["n"], duration)


def _show_plan(
    settings: ReproductionSettings, runs: Sequence[PlannedRun], done: Sequence[bool]
) -> dict[int, float]:
    """Prints the runs; returns the estimated seconds of each, {} without an estimate."""
    todo = [run for run, is_done in zip(runs, done, strict=True) if not is_done]
    seconds: dict[int, float] = {}
    if settings.estimate and todo:
        speeds = {
            model: seconds_per_image(next(run for run in todo if run.model == model))
            for model in dict.fromkeys(run.model for run in todo)
        }
        for model, value in speeds.items():
            logger.info("measured: %s trains at %.0f images/s here", model, 1 / value)
        seconds = estimate_seconds(
            runs, _training_images(runs), {run.model: speeds.get(run.model, 0.0) for run in runs}
        )
    for number, (run, is_done) in enumerate(zip(runs, done, strict=True)):
        to_do = f"about {format_duration(seconds[number])}" if seconds else "to do"
        print(f"{number + 1:>3}  {run.title:<60} {'done' if is_done else to_do}")
    if seconds:
        left = sum(value for n, value in seconds.items() if not done[n])
        print(f"{len(todo)} of {len(runs)} runs to do, about {format_duration(left)}")
    return seconds


def _training_images(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """Training examples of an epoch of both sets, views included."""
    images = {}
    for run in runs:
        experiment = "pbc" if run.stage == "pbc" else "cart"
        if experiment not in images:
            dataset = open_dataset(run.config.data, progress=True)
            rows = split_dataset(dataset, run.config.data.split).indices("train")
            images[experiment] = len(rows) * (1 if experiment == "pbc" else 6)
    if not images:
        raise UserError("the plan is empty: choose at least one model and one seed")
    return images
