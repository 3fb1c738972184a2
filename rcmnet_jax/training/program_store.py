"""Which compiled programs are kept on disk, where, and under what names.

JAX's compilation cache spares a second start the compiler, but not the seconds in which Python
traces a network and lowers it, which must happen before that cache can be asked. Here the whole
executable (`StoredProgram`) is found by what its trace depends on: the config, the data's shapes,
the source of this package, the versions beneath it, and the machine. Three programs are kept: the
one that draws the initial weights, the training step, and the prediction of `rcmnet predict` and of
exports. A thread loads them while data set or weights are opened; where such a config was trained
before, already while the rest of this package is imported (`load_ahead`), for loading is what a
second start waits for. Only on one CPU device: a run on an accelerator starts seldom and takes
long.

The files are pickles of machine code and belong to the compile cache; trust them as you trust that
folder. ``RCMNET_STORED_STEP=off`` turns it off.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import rcmnet_jax
from rcmnet_jax.data.order import filled_up
from rcmnet_jax.data.threads import default_workers
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import replacing
from rcmnet_jax.training.stored_program import (
    JAXS_CACHE,
    Jitted,
    StoredProgram,
    forget_ahead,
    read_ahead,
)

if TYPE_CHECKING:
    # Not at run time: what they import is imported while programs are loaded.
    import ml_collections
    from flax import linen as nn

    from rcmnet_jax.training.experiment import Experiment
    from rcmnet_jax.training.steps import Recipe

logger = logging.getLogger(__name__)

VARIABLE = "RCMNET_STORED_STEP"
# Parts of a config that no step depends on: what it takes of data and start is in the recipe, and
# rates are given.
NOT_TRACED = (
    *("log", "checkpoint", "eval", "seed", "data", "init"),
    *("train.epochs", "train.early_stop", "train.repeats"),
    *("optim.learning_rate", "optim.schedule", "optim.warmup_epochs"),
)
# Parts of a recipe that a step is given.
GIVEN = ("mean", "std", "class_weights", "learning_rate")
# Runs that differ in these alone are likely to have the same programs.
NOT_GUESSED = (*(name for name in NOT_TRACED if name not in ("data", "init")), "data.split.fold")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "ml_collections")
CPU_FLAGS = Path("/proc/cpuinfo")


def store_folder() -> Path | None:
    """Where programs are kept; None where none is: switched off, no compile cache, not one CPU."""
    cache = jax.config.values["jax_compilation_cache_dir"]
    if os.environ.get(VARIABLE) == "off" or not cache:
        return None
    # A folder in a bucket is one that JAX can write to and we cannot.
    if "://" in cache or jax.default_backend() != "cpu" or jax.device_count() != 1:
        return None
    return Path(cache) / "steps"


def load_ahead(config: "ml_collections.ConfigDict") -> None:
    """Begins to load the programs that the last run of such a config had, if there was one.

    Before the data set is opened nobody knows whether they are what this run wants, too: then
    `StoredProgram` finds them on their way, and else it was for nothing.
    """
    folder = store_folder()
    if folder is None:
        return
    try:
        names = _last_path(folder, config).read_text().splitlines()
    except (OSError, ValueError):
        return
    read_ahead([folder / name for name in names])


def remember_programs(paths: Sequence[Path], config: "ml_collections.ConfigDict") -> None:
    """Writes down which programs a run of this config has, in the order in which it wants them.

    What `load_ahead` loaded and nobody has asked for is dropped.
    """
    forget_ahead()
    last = _last_path(paths[0].parent, config)
    names = "\n".join(path.name for path in paths)
    try:
        if not last.exists() or last.read_text() != names:
            with replacing(last) as temporary:
                temporary.write_text(names)
    except (UserError, OSError, ValueError) as error:
        logger.debug("%s is not written: %s", last, error)


def _last_path(folder: Path, config: "ml_collections.ConfigDict") -> Path:
    likely = _without(config.to_dict(), NOT_GUESSED)
    return folder / f"{_digest({'config': likely, **_surroundings()})}.last"


def network_program(
    function: Callable,
    kind: str,
    model: "nn.Module",
    input_shape: tuple[int, ...],
    **options,
) -> Jitted:
    """A function of one network, compiled; kept on disk where programs are kept.

    Args:
      function: of arrays in tuples, lists and dicts, to such.
      kind: as of `network_path`.
      model: the network.
      input_shape: (B, H, W, 3).
      options: of `jax.jit`.
    """
    folder = store_folder()
    # The source of another package's network is not in the name.
    if folder is None or not type(model).__module__.startswith(f"{rcmnet_jax.__name__}."):
        return jax.jit(function, **options)
    return StoredProgram(function, network_path(folder, kind, model, input_shape), **options)


def network_path(folder: Path, kind: str, model: "nn.Module", input_shape: tuple[int, ...]) -> Path:
    """The file of a program of one network that depends on no config.

    Args:
      folder: of the store.
      kind: what the program does, ``init`` or ``predict``.
      model: one of our networks.
      input_shape: (B, H, W, 3).
    """
    made_from = {"model": repr(model), "image": input_shape, **_settings(), **_surroundings()}
    return folder / f"{_digest(made_from)}.{kind}"


def step_path(folder: Path, experiment: "Experiment", recipe: "Recipe", kind: str) -> Path:
    """The file of a run's step, named by everything that its program is made from.

    Args:
      folder: of the store.
      experiment: the run.
      recipe: of the epoch.
      kind: which function the step is.
    """
    order = experiment.order
    made_from = {
        "kind": kind,
        "config": _without(experiment.config.to_dict(), NOT_TRACED),
        "classes": len(experiment.dataset.class_names),
        "image": experiment.input_shape,
        "recipe": _without(dataclasses.asdict(recipe), GIVEN),
        "rows": len(filled_up(order.labels)) if experiment.config.data.cache == "device" else None,
        "unfreezing": {
            path: epoch * order.steps_per_epoch for path, epoch in experiment.unfreezing.items()
        },
        **_settings(),
        **_surroundings(),
    }
    return folder / f"{_digest(made_from)}.step"


def _without(values: Mapping[str, Any], names: tuple[str, ...], group: str = "") -> dict[str, Any]:
    """Nested values but those named, ``group.name`` in a group."""
    return {
        name: _without(value, names, f"{group}{name}.") if isinstance(value, Mapping) else value
        for name, value in values.items()
        if f"{group}{name}" not in names
    }


def _digest(made_from: dict[str, Any]) -> str:
    text = json.dumps(made_from, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _settings() -> dict[str, Any]:
    """Whatever a user set of JAX, by call or by environment."""
    return {
        "jax": {
            name: repr(value)
            for name, value in sorted(jax.config.values.items())
            if not name.startswith(JAXS_CACHE)
        },
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("XLA_", "JAX_", "FLAX_"))
            and not name.lower().startswith(JAXS_CACHE)
        },
    }


@lru_cache(maxsize=1)
def _surroundings() -> dict[str, Any]:
    """Source, versions and machine."""
    source = hashlib.sha256()
    root = Path(rcmnet_jax.__file__).parent
    for path in sorted(root.rglob("*.py")):
        source.update(str(path.relative_to(root)).encode())
        source.update(path.read_bytes())
    flags = ""
    if CPU_FLAGS.exists():
        lines = CPU_FLAGS.read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return {
        "source": source.hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": [platform.python_version(), platform.platform(), flags, default_workers()],
    }
