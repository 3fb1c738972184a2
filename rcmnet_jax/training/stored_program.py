"""A compiled function in a file: read by a thread, or compiled, read back and written down.

The files are pickles of machine code. `rcmnet_jax.training.program_store` says which there are.
"""

import contextlib
import logging
import pickle
import pickletools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from struct import pack
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable
from jax.tree_util import PyTreeDef

from rcmnet_jax.files import replacing

logger = logging.getLogger(__name__)

# So many files of a kind are kept, the newest.
KEPT = 16
# Settings of JAX's own cache, which no program depends on.
JAXS_CACHE = "jax_persistent_cache_"
# Pickle has values from this size on outside its frames, whose lengths it writes down.
OUTSIDE_FRAMES = 1 << 16


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


# Begun ahead, and nobody has asked for it yet.
_ahead: dict[Path, _File] = {}


def read_ahead(paths: Iterable[Path]) -> None:
    """Begins to read files, in this order, for the `StoredProgram` that will want them."""
    _ahead.update(_begin_to_read(paths))


def forget_ahead() -> None:
    """Drops what was read ahead and nobody has asked for."""
    _ahead.clear()


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
