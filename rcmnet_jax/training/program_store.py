"""Compiled programs kept on disk, so that a second start does not trace them again.

JAX's compilation cache spares a second start the compiler, but not the seconds in which Python
traces a network and lowers it, which must happen before that cache can be asked. Here the whole
executable is found by what its trace depends on: the config, the data's shapes, the source of this
package, the versions beneath it, and the machine. Three programs are kept: the one that draws the
initial weights, the training step, and the prediction of `rcmnet predict` and of exports. A thread
loads them while data set or weights are opened; where such a config was trained before, already
while the rest of this package is imported (`load_ahead`), for loading is what a second start waits
for. Only on one CPU device: a run on an accelerator starts seldom and takes long.

The files are pickles of machine code and belong to the compile cache; trust them as you trust that
folder. ``RCMNET_STORED_STEP=off`` turns it off.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import pickle
import pickletools
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable
from jax.tree_util import PyTreeDef

import rcmnet_jax
from rcmnet_jax.data.order import filled_up
from rcmnet_jax.data.threads import default_workers
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import replacing

if TYPE_CHECKING:
    # Not at run time: what they import is imported while programs are loaded.
    import ml_collections
    from flax import linen as nn

    from rcmnet_jax.training.experiment import Experiment
    from rcmnet_jax.training.steps import Recipe

logger = logging.getLogger(__name__)

VARIABLE = "RCMNET_STORED_STEP"
# Parts of a config that neither a program nor the data depend on.
NOT_COMPUTED = ("log", "checkpoint", "eval", "seed")
# And that no step depends on: what it takes of data and start is in the recipe, rates are given.
NOT_TRACED = (
    *(*NOT_COMPUTED, "data", "init", "train.epochs", "train.early_stop", "train.repeats"),
    *("optim.learning_rate", "optim.schedule", "optim.warmup_epochs"),
)
# Parts of a recipe that a step is given.
GIVEN = ("mean", "std", "class_weights", "learning_rate")
# Runs that differ in these alone are likely to have the same programs.
NOT_GUESSED = (*(name for name in NOT_TRACED if name not in ("data", "init")), "data.split.fold")
# So many files of a kind are kept, the newest.
KEPT = 16
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "ml_collections")
CPU_FLAGS = Path("/proc/cpuinfo")
# Settings of JAX's own cache, which no program depends on.
JAXS_CACHE = "jax_persistent_cache_"
# Pickle has values from this size on outside its frames, whose lengths it writes down.
OUTSIDE_FRAMES = 1 << 16


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
    _ahead.update(_begin_to_read([folder / name for name in names]))


def remember_programs(paths: Sequence[Path], config: "ml_collections.ConfigDict") -> None:
    """Writes down which programs a run of this config has, in the order in which it wants them.

    What `load_ahead` loaded and nobody has asked for is dropped.
    """
    _ahead.clear()
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


class _File:
    """A file that a thread reads.

    Args:
      path: the file; there may be none.
    """

    def __init__(self, path: Path):
        self._path = path
        self._kept: _Kept | None = None
        self._done = threading.Event()

    def content(self) -> "_Kept | None":
        """What was in it, once it is read; None where it is of no use."""
        self._done.wait()
        return self._kept

    def read(self) -> None:
        """Reads it; whatever is wrong with a cache, the run goes on without."""
        try:
            # At the end of the process nobody wants it any more.
            if threading.main_thread().is_alive():
                self._kept = _opened(pickle.loads(self._path.read_bytes()))
                # The newest are kept.
                self._path.touch()
        except FileNotFoundError:
            pass
        except Exception as error:
            logger.debug("stored program %s cannot be used: %s", self._path, error)
        finally:
            self._done.set()


def _begin_to_read(paths: Iterable[Path]) -> dict[Path, _File]:
    """Files that a thread reads, one after the other."""
    files = {path: _File(path) for path in paths}

    def read():
        for file in files.values():
            file.read()

    # No daemon: XLA, about to hand over what it has read, would end a process that ends with an
    # abort. So the end waits for the file that is being read, two seconds at most.
    threading.Thread(target=read, name="stored programs").start()
    return files


# Begun by `load_ahead`, and nobody has asked for it yet.
_ahead: dict[Path, _File] = {}


class Jitted(Protocol):
    """What `jax.jit` makes of a function, as far as it is used here."""

    def __call__(self, *arguments) -> Any:
        """One dispatch."""

    def eval_shape(self, *arguments) -> Any:
        """Shapes and types of the results."""


class StoredProgram:
    """A function, `Jitted`: loaded from disk where it can be, and else compiled and kept.

    Args:
      function: of arrays in tuples, lists and dicts, to such.
      path: the file; its name says what the program is made from.
      donated: the numbers of the arguments that are given away.
      options: others of `jax.jit`.
    """

    def __init__(self, function: Callable, path: Path, donated: tuple[int, ...] = (), **options):
        self._function, self._path, self._donated = function, path, donated
        self._options = {**options, "donate_argnums": donated}
        self._jitted = jax.jit(function, **self._options)
        self._file = _ahead.pop(path) if path in _ahead else _begin_to_read([path])[path]
        self._kept: _Kept | None = None
        self._prepared = False
        self._preparing = threading.Lock()

    def __call__(self, *arguments):
        """One dispatch."""
        with self._preparing:
            if not self._prepared:
                # If there was none, another object may have made it since.
                self._kept = self._file.content() or self._content_now() or self._compile(arguments)
                self._prepared = True
        kept = self._kept
        if kept is None or not kept.fits(arguments):
            # Another number of steps a dispatch, say, than the one that is kept.
            return self._jitted(*arguments)
        try:
            return kept.program(*arguments)
        except (TypeError, ValueError) as error:
            # Said before anything runs: other types or places than those it was made for.
            logger.debug("stored program %s does not fit: %s", self._path, error)
            self._kept = None
            return self._jitted(*arguments)

    def eval_shape(self, *arguments):
        """Shapes and types of the results; without a trace where the program is there."""
        kept = self._file.content()
        if kept is not None and kept.fits(arguments):
            return kept.program.out_info
        return self._jitted.eval_shape(*arguments)

    def _content_now(self) -> "_Kept | None":
        file = _File(self._path)
        file.read()
        return file.content()

    def _compile(self, arguments) -> "_Kept":
        """The program, kept on disk."""

        def function(*arguments):
            return self._function(*arguments)

        # A name that JAX's cache cannot know: a program that came out of it is written down without
        # its code (jaxlib 0.10).
        function.__name__ = f"stored_{time.time_ns()}"
        lowered = jax.jit(function, **self._options).lower(*arguments)
        with _not_in_jaxs_cache():
            program = lowered.compile()
        try:
            content, in_tree, out_tree = serialize_executable.serialize(program)
            stored = (_slimmed(content), in_tree, out_tree)
            # Kept once it was read back and run, on copies of what would be given away.
            copies = [
                jax.tree.map(jnp.copy, argument) if number in self._donated else argument
                for number, argument in enumerate(arguments)
            ]
            jax.block_until_ready(_opened(stored).program(*copies))
            with replacing(self._path) as temporary:
                temporary.write_bytes(pickle.dumps(stored))
            _drop_oldest(self._path)
        except Exception as error:
            # A full disk, or what this version of JAX cannot write down or read back.
            logger.debug("the compiled program is not kept: %s", error)
        return _Kept(program)


_compiling = threading.Lock()


@contextlib.contextmanager
def _not_in_jaxs_cache() -> Iterator[None]:
    """Keeps a program out of JAX's cache, where it would lie a second time and not be found."""
    name = f"{JAXS_CACHE}min_compile_time_secs"
    with _compiling:
        before = jax.config.values[name]
        jax.config.update(name, float("inf"))
        try:
            yield
        finally:
            jax.config.update(name, before)


class StoredStep:
    """A training step as a `StoredProgram`, which does not know our classes.

    Args:
      step: ``(state, *arguments) -> (state, metrics)``, to be compiled with its state donated.
      out_shardings: of all results.
      path: the file.
    """

    def __init__(self, step: Callable, out_shardings: Any, path: Path):
        def plain_step(leaves, *arguments):
            state, metrics = step(jax.tree.unflatten(self._structure, leaves), *arguments)
            return jax.tree.leaves(state), metrics

        self._structure: Any = None
        self._program = StoredProgram(plain_step, path, donated=(0,), out_shardings=out_shardings)

    def __call__(self, state, *arguments):
        """One dispatch."""
        leaves, self._structure = jax.tree.flatten(state)
        leaves, metrics = self._program(leaves, *arguments)
        return jax.tree.unflatten(self._structure, leaves), metrics


class _Kept:
    """A compiled program and the shapes it is for."""

    def __init__(self, program: jax.stages.Compiled):
        self.program = program
        in_shapes, _ = program.in_avals
        self._shapes = _shapes(in_shapes)

    def fits(self, arguments) -> bool:
        """Whether the arguments have its shapes."""
        return self._shapes == _shapes(arguments)


def _opened(stored: tuple[bytes, PyTreeDef, PyTreeDef]) -> _Kept:
    """The program of a file, loaded on the first device."""
    content, in_tree, out_tree = stored
    device = jax.devices()[:1]
    return _Kept(
        serialize_executable.deserialize_and_load(
            content, in_tree, out_tree, execution_devices=device
        )
    )


def _slimmed(pickled: bytes) -> bytes:
    """A pickle of JAX with its one large value, the executable, slimmed."""
    # Only where a program is written: protobuf takes a start 25 ms to import.
    from rcmnet_jax.training.slim_executable import slim

    for (_, value, start), (_, _, end) in pairwise(pickletools.genops(pickled)):
        if isinstance(value, bytes) and len(value) >= OUTSIDE_FRAMES:
            try:
                slimmed = slim(value)
            except ValueError as error:
                logger.debug("kept as it is: %s", error)
                return pickled
            return b"".join(
                (pickled[:start], pickle.BINBYTES, pack("<I", len(slimmed)), slimmed, pickled[end:])
            )
    return pickled


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


def _shapes(arguments) -> tuple[tuple[int, ...], ...]:
    return tuple(leaf.shape for leaf in jax.tree.leaves(arguments))


def _drop_oldest(newest: Path) -> None:
    """The oldest of a kind, and what was written down of them."""
    folder = newest.parent
    by_age = sorted(folder.glob(f"*{newest.suffix}"), key=lambda path: path.stat().st_mtime)
    dropped = {path.name for path in by_age[:-KEPT]}
    for name in dropped:
        (folder / name).unlink(missing_ok=True)
    for last in folder.glob("*.last"):
        if dropped & set(last.read_text().splitlines()):
            last.unlink(missing_ok=True)
