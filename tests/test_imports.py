"""The rooms of the library import in one direction, and the light ones stay light."""

import ast
import subprocess
import sys
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
    "workdir": {"hosts"},
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


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else parts[0].removesuffix(".py")


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


@pytest.mark.parametrize("room", WITHOUT_JAX)
def test_rooms_without_jax_have_none_in_their_sources(room):
    for path in (PACKAGE / room).rglob("*.py"):
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & {"jax", "flax", "optax", "orbax"}, path


def test_the_library_never_imports_the_configs_or_the_tests():
    for path in MODULES:
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & {"configs", "tests", "train"}, path


@pytest.mark.parametrize("module", ["rcmnet_jax.evaluation.metrics", "rcmnet_jax.data"])
def test_light_modules_load_without_jax_and_tensorflow(module):
    # The data room registers its builders with TFDS, which loads TensorFlow only where it is used.
    code = (
        f"import sys, {module}\n"
        "heavy = ('jax', 'flax', 'tensorflow', 'grain')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
