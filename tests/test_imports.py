"""The rooms of the library import in one direction, and the light ones stay light."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rcmnet_jax"
# Leaves, importable from everywhere.
COMMON = {"errors", "files", "logistic", "types", "runtime", "rcmnet_jax"}
# The arrows of docs/decisions/0001: each room, and the rooms that it stands on. A room may also
# import whatever those stand on.
STANDS_ON = {
    "kernels": set(),
    "html": set(),
    "data": set(),
    "synthetic": set(),
    "evaluation": set(),
    "hosts": set(),
    "models": {"kernels"},
    "workdir": set(),
    "inference": {"models", "data", "evaluation", "hosts"},
    "checkpoints": {"inference"},
    "transfer": {"inference"},
    "interop": {"checkpoints", "transfer"},
    "training": {"interop", "synthetic", "workdir"},
    "scoring": {"training"},
    "prediction": {"checkpoints"},
    "explain": {"scoring", "html"},
    "export": {"scoring", "prediction"},
    "report": {"explain"},
    "paper": {"report"},
    "cli": {"export", "paper"},
}
# Written down so that a new import of a framework is a decision.
WITHOUT_JAX = ("evaluation", "html")
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted(
    path for place in ("benchmarks", "configs") for path in (PACKAGE.parent / place).rglob("*.py")
)
# Module names that several rooms share, each for the same thing of its room.
SAME_NAME: set[str] = set()


def imports_of(path: Path) -> set[str]:
    """Dotted names of all imports of a file, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


# What may change without notice, or runs code that a file holds.
FORBIDDEN = ("jax._src", "jaxlib", "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve")


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_at_load(path: Path) -> set[str]:
    """Imports outside functions, which run when the module is loaded."""
    tree = ast.parse(path.read_text())
    names = set()
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting += list(ast.iter_child_nodes(node))
    return names


def below(room: str) -> set[str]:
    """All rooms that a room may import."""
    return STANDS_ON[room].union(*(below(other) for other in STANDS_ON[room]))


def test_every_room_has_its_line_here():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == STANDS_ON.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = room_of(path)
    if room in STANDS_ON:
        allowed = below(room) | {room}
    else:
        allowed = {"cli"} if path.name == "__main__.py" else set()
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("rcmnet_jax.")}
    ours -= {"__version__"}
    assert ours - COMMON - allowed == set()


def test_no_two_rooms_stand_on_each_other():
    """`below` would recurse for ever; this names the circle."""

    def follow(room, path):
        assert room not in path, " -> ".join([*path, room])
        for other in STANDS_ON[room]:
            follow(other, [*path, room])

    for room in STANDS_ON:
        follow(room, [])


def test_every_arrow_is_used_or_implied():
    """A room that needs another no more loses its arrow."""
    used = {room: set() for room in STANDS_ON}
    for path in MODULES:
        if room_of(path) in STANDS_ON:
            names = imports_of(path)
            used[room_of(path)] |= {n.split(".")[1] for n in names if n.startswith("rcmnet_jax.")}
    unused = {
        f"{room} -> {other}"
        for room, others in STANDS_ON.items()
        for other in others
        if not used[room] & (below(other) | {other})
    }
    assert unused == set()


def test_modules_of_a_room_do_not_import_in_circles():
    modules = {module_name(path): imports_at_load(path) for path in MODULES}
    finished: set[str] = set()

    def follow(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in finished:
            return
        for other in sorted(modules[name] & modules.keys()):
            # A package's __init__ names what its own modules define.
            if other != name and not name.startswith(f"{other}."):
                follow(other, [*path, name])
        finished.add(name)

    for name in modules:
        follow(name, [])


@pytest.mark.parametrize(
    "path", [*MODULES, *TOOLS], ids=lambda p: str(p.relative_to(PACKAGE.parent))
)
def test_nothing_private_of_jax_and_no_pickle(path):
    names = imports_of(path)
    bad = {
        name
        for name in names
        if any(name == word or name.startswith(f"{word}.") for word in FORBIDDEN)
        or (name.startswith("jax.") and "._" in name)
    }
    # Its version is public.
    assert bad - {"jaxlib"} == set() if path in TOOLS else bad == set()


def test_no_two_modules_have_one_name():
    names = Counter(path.name for path in MODULES if path.name != "__init__.py")
    shared = {name for name, count in names.items() if count > 1}
    # A command has the name of the room that it runs.
    commands = {path.name for path in (PACKAGE / "cli").glob("*.py")}
    assert shared - commands - SAME_NAME == set()


@pytest.mark.parametrize("room", WITHOUT_JAX)
def test_rooms_without_jax_have_none_in_their_sources(room):
    for path in (PACKAGE / room).rglob("*.py"):
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & {"jax", "flax", "optax", "orbax"}, path


def test_the_library_never_imports_the_configs_or_the_tests():
    for path in MODULES:
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & {"configs", "tests", "train"}, path


@pytest.mark.parametrize(
    "module", ["rcmnet_jax.evaluation.metrics", "rcmnet_jax.data.splits", "rcmnet_jax.data.order"]
)
def test_light_modules_load_without_jax_and_tensorflow(module):
    code = (
        f"import sys, {module}\n"
        "heavy = ('jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'grain')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
