"""``rcmnet reproduce``: plan, estimate, train what is missing, and write the report."""

import dataclasses
import logging
import time
from collections.abc import Sequence

from rcmnet_jax.errors import ConfigError, TrainingError, UserError
from rcmnet_jax.paper.collect import collect
from rcmnet_jax.paper.estimate import estimate_seconds, seconds_per_image, spoken
from rcmnet_jax.paper.pages import write_report
from rcmnet_jax.paper.plan import PROTOCOLS, PlannedRun, Request, find_configs, make_plan
from rcmnet_jax.training.inputs import open_dataset, split_dataset
from rcmnet_jax.training.loop import train

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options(Request):
    """What is to be reproduced, and how far.

    Attributes:
      dry_run: show the plan and train nothing.
      calibrate: measure the speed of each network before the plan is shown.
    """

    dry_run: bool = False
    calibrate: bool = True


def reproduce(options: Options) -> list[str]:
    """Does it; a second call goes on where the first was stopped.

    Args:
      options: what is asked for.

    Returns:
      One line for each run that failed; the others are done and in the report.

    Raises:
      UserError: options, images or folders that cannot be used.
    """
    _check(options)
    runs = make_plan(options, find_configs())
    done = [run.is_done() for run in runs]
    seconds = _show_plan(options, runs, done)
    if options.dry_run:
        return []
    failed: list[str] = []
    for number, run in enumerate(runs):
        if done[number]:
            continue
        left = sum(value for n, value in seconds.items() if n >= number and not done[n])
        told = f", about {spoken(left)} left" if seconds else ""
        logger.info("run %d of %d: %s%s", number + 1, len(runs), run.title, told)
        _train(run, failed)
        # After each, so that a stopped reproduction leaves what it has.
        write_report(options, runs, collect(runs), failed, figures=False)
    write_report(options, runs, collect(runs), failed, figures=True)
    return failed


def _check(options: Options) -> None:
    if options.quick and (options.pbc or options.cart):
        raise ConfigError("--quick draws its cells: leave out --pbc and --cart")
    if not options.quick and not options.pbc:
        raise ConfigError("--pbc is missing: give the folder of the PBC images, or --quick")
    unknown = sorted(set(options.protocols) - set(PROTOCOLS))
    if unknown or not options.protocols:
        raise ConfigError(f"protocols are {' and '.join(PROTOCOLS)}, not {unknown}")


def _train(run: PlannedRun, failed: list[str]) -> None:
    """Trains; what one run cannot do must not keep the others from being done."""
    start = time.perf_counter()
    try:
        summary = train(run.config, run.workdir)
    except TrainingError as error:
        failed.append(f"{run.title}: {error}")
        logger.error("failed: %s", error)
        return
    accuracy = summary["test"]["accuracy"]
    logger.info(
        "%s: %d/%d in %s",
        run.title,
        accuracy["k"],
        accuracy["n"],
        spoken(time.perf_counter() - start),
    )


def _show_plan(
    options: Options, runs: Sequence[PlannedRun], done: Sequence[bool]
) -> dict[int, float]:
    """Prints the runs with an estimate; the seconds of each, where they were estimated."""
    todo = [run for run, is_done in zip(runs, done, strict=True) if not is_done]
    seconds: dict[int, float] = {}
    if options.calibrate and todo:
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
        state = "done" if is_done else f"about {spoken(seconds[number])}" if seconds else "to do"
        print(f"{number + 1:>3}  {run.title:<60} {state}")
    if seconds:
        left = sum(value for n, value in seconds.items() if not done[n])
        print(f"{len(todo)} of {len(runs)} runs to do, about {spoken(left)}")
    return seconds


def _training_images(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """Training examples of an epoch, views included, of both sets."""
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
