"""The compiled training step kept on disk, so that a second start does not trace it again.

JAX's compilation cache spares a second start the compiler, but not the two seconds in which Python
traces the step and lowers it, which must happen before that cache can be asked. Here the whole
executable is found by what its trace depends on: the config, the data's shapes, the source of this
package, the versions beneath it, and the machine. A thread loads it while the data set is opened
and the initial weights are drawn; where the same config was run before, already while the rest of
this package is imported (`load_ahead`), for loading is what a second start waits for. Only on one
CPU device: a run on an accelerator starts seldom and takes long.

The files are pickles of machine code and belong to the compile cache; trust them as you trust that
folder. ``RCMNET_STORED_STEP=off`` turns it off.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import pickle
import platform
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.errors import JaxRuntimeError
from jax.experimental import serialize_executable

import rcmnet_jax
from rcmnet_jax.data.order import filled_up
from rcmnet_jax.data.threads import default_workers
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import replacing

if TYPE_CHECKING:
    # Not at run time: what they import is imported while a step is loaded.
    from rcmnet_jax.training.experiment import Experiment
    from rcmnet_jax.training.steps import Recipe

logger = logging.getLogger(__name__)

VARIABLE = "RCMNET_STORED_STEP"
# Parts of a config that neither a step nor the data depend on.
NOT_COMPUTED = ("log", "checkpoint", "eval", "seed")
# And that no step depends on: what it takes of the data is in the recipe.
NOT_TRACED = (*NOT_COMPUTED, "data")
# Parts of a recipe that a step is given.
GIVEN = ("mean", "std")
# The files of so many configurations are kept, the newest.
KEPT = 16
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "ml_collections")
CPU_FLAGS = Path("/proc/cpuinfo")


def store_folder() -> Path | None:
    """Where steps are kept; None where none is: switched off, no compile cache, not one CPU."""
    cache = jax.config.values["jax_compilation_cache_dir"]
    if os.environ.get(VARIABLE) == "off" or not cache:
        return None
    # A folder in a bucket is one that JAX can write to and we cannot.
    if "://" in cache or jax.default_backend() != "cpu" or jax.device_count() != 1:
        return None
    return Path(cache) / "steps"


def load_ahead(config: ml_collections.ConfigDict) -> None:
    """Begins to load the step that the last run of this config had, if there was one.

    Before the data set is opened nobody knows whether it is the step that this run wants, too: then
    `StoredStep` finds it on its way, and else it was for nothing.
    """
    folder = store_folder()
    if folder is None:
        return
    try:
        path = folder / _last_path(folder, config).read_text()
    except (OSError, ValueError):
        return
    _loading[path] = _Loading(path)


def remember_step(path: Path, config: ml_collections.ConfigDict) -> None:
    """Writes down which step a run of this config has, for `load_ahead`."""
    last = _last_path(path.parent, config)
    try:
        if not last.exists() or last.read_text() != path.name:
            with replacing(last) as temporary:
                temporary.write_text(path.name)
    except (UserError, OSError, ValueError) as error:
        logger.debug("%s is not written: %s", last, error)


def _last_path(folder: Path, config: ml_collections.ConfigDict) -> Path:
    computed = _without(config.to_dict(), NOT_COMPUTED)
    return folder / f"{_digest({'config': computed, **_surroundings()})}.last"


class _Loading:
    """A file that a thread loads.

    Args:
      path: the file; there may be none.
    """

    def __init__(self, path: Path):
        self._path = path
        self._kept: _Kept | None = None
        self._thread = threading.Thread(target=self._load, name="stored step", daemon=True)
        self._thread.start()

    def result(self) -> "_Kept | None":
        """What was in it, once it is loaded; None where it is of no use."""
        self._thread.join()
        return self._kept

    def _load(self) -> None:
        try:
            content = self._path.read_bytes()
        except OSError:
            return
        try:
            self._kept = _opened(_Stored(**pickle.loads(content)))
            # The newest are kept.
            self._path.touch()
        except Exception as error:
            # Whatever is wrong with a cache, the run goes on without it.
            logger.debug("stored step %s cannot be used: %s", self._path, error)


# Begun by `load_ahead`, and nobody has asked for it yet.
_loading: dict[Path, _Loading] = {}


def _begun(path: Path) -> _Loading:
    """What `load_ahead` has begun, if it was this file, and else a beginning."""
    found = _loading.pop(path, None)
    # A step that this run turned out not to want.
    _loading.clear()
    return found or _Loading(path)


class StoredStep:
    """A training step that is loaded from disk where it can be, and else compiled and kept.

    Args:
      step: ``(state, *arguments) -> (state, metrics)``, to be compiled with its state donated.
      out_shardings: of all results.
      path: the file; its name says what the program was made from.
    """

    def __init__(self, step: Callable, out_shardings: Any, path: Path):
        self._step, self._out_shardings, self._path = step, out_shardings, path
        self._jitted = jax.jit(step, donate_argnums=0, out_shardings=out_shardings)
        self._loading = _begun(path)
        self._kept: _Kept | None = None
        self._prepared = False

    def __call__(self, state, *arguments):
        """One dispatch."""
        if not self._prepared:
            self._prepare(state, arguments)
        kept = self._kept
        if kept is None or kept.shapes != _shapes(arguments):
            # Another number of steps a dispatch than the one that is kept.
            return self._jitted(state, *arguments)
        leaves, structure = jax.tree.flatten(state)
        try:
            results = kept.program(*leaves, *jax.tree.leaves(arguments))
        except (TypeError, ValueError) as error:
            # Said before anything runs: other types or places than those it was made for.
            logger.debug("stored step %s does not fit: %s", self._path, error)
            self._kept = None
            return self._jitted(state, *arguments)
        state = jax.tree.unflatten(structure, results[: len(leaves)])
        return state, dict(zip(kept.metrics, results[len(leaves) :], strict=True))

    def _prepare(self, state, arguments) -> None:
        self._kept = self._loading.result()
        if self._kept is None or self._kept.shapes != _shapes(arguments):
            self._kept = self._compile(state, arguments)
        self._prepared = True

    def _compile(self, state, arguments) -> "_Kept | None":
        """The step over flat lists, whose program does not name our classes; kept on disk."""
        leaves, structure = jax.tree.flatten((state, *arguments))
        metrics: list[str] = []

        def flat_step(*leaves):
            state, values = self._step(*jax.tree.unflatten(structure, leaves))
            metrics[:] = sorted(values)
            return [*jax.tree.leaves(state), *(values[name] for name in metrics)]

        # A name that JAX's cache cannot know: a program that came out of it is written down without
        # its code (jaxlib 0.10).
        flat_step.__name__ = f"step_{time.time_ns()}"
        count = len(jax.tree.leaves(state))
        jitted = jax.jit(
            flat_step, donate_argnums=tuple(range(count)), out_shardings=self._out_shardings
        )
        program = jitted.lower(*leaves).compile()
        kept = _Kept(program, tuple(metrics), _shapes(arguments))
        try:
            content, _, results = serialize_executable.serialize(program)
            stored = _Stored(content, len(leaves), results.num_leaves, kept.metrics, kept.shapes)
            # Kept once it was read back and made a step, on copies of the state.
            copies = [jnp.copy(leaf) for leaf in leaves[:count]]
            jax.block_until_ready(_opened(stored).program(*copies, *leaves[count:]))
            with replacing(self._path) as temporary:
                temporary.write_bytes(pickle.dumps(dataclasses.asdict(stored)))
            _drop_oldest(self._path.parent)
        except (UserError, OSError, ValueError, NotImplementedError, JaxRuntimeError) as error:
            # A full disk, or what this version of JAX cannot write down or read back.
            logger.debug("the compiled step is not kept: %s", error)
        return kept


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A program over flat lists, the names of its metrics, and the shapes it is for."""

    program: Callable
    metrics: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class _Stored:
    """What a file holds."""

    program: bytes
    leaves: int
    results: int
    metrics: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def _opened(stored: _Stored) -> _Kept:
    """The program of a file, loaded on the first device."""
    program = serialize_executable.deserialize_and_load(
        stored.program,
        jax.tree.structure(((0,) * stored.leaves, {})),
        jax.tree.structure([0] * stored.results),
        execution_devices=jax.devices()[:1],
    )
    return _Kept(program, stored.metrics, stored.shapes)


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
        "steps": [experiment.total_steps, order.steps_per_epoch],
        "rows": len(filled_up(order.labels)),
        "unfreezing": experiment.unfreezing,
        # Whatever a user set of JAX, by call or by environment.
        "jax": {name: repr(value) for name, value in sorted(jax.config.values.items())},
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("XLA_", "JAX_", "FLAX_"))
        },
        **_surroundings(),
    }
    return folder / f"{_digest(made_from)}.step"


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _digest(made_from: dict[str, Any]) -> str:
    text = json.dumps(made_from, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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


def _shapes(arguments) -> tuple[tuple[int, ...], ...]:
    return tuple(leaf.shape for leaf in jax.tree.leaves(arguments))


def _drop_oldest(folder: Path) -> None:
    by_age = sorted(folder.glob("*.step"), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-KEPT]:
        path.unlink(missing_ok=True)
    for last in folder.glob("*.last"):
        if not (folder / last.read_text()).exists():
            last.unlink(missing_ok=True)
