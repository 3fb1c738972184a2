"""Thousands of inputs that are nearly right: each gives a result or one line, nothing else.

A few hundred in the quick tests, 12,000 in the slow ones (``make test-slow``).
"""

import collections
import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.harness import outside, survives, watched
from tests.fuzz.targets import TARGETS, Target

# ml_collections loads config files so.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module.. method:DeprecationWarning")
# With 2,000 state dicts, weight files, bundles and checkpoints in test_weights.py: 14,000.
QUICK, ALL = 440, 12_000
_SHARES = sum(target.share for target in TARGETS.values())


def try_many(target: Target, count: int) -> collections.Counter[str]:
    """How so many inputs ended."""
    endings: collections.Counter[str] = collections.Counter()
    root = Path(tempfile.mkdtemp(prefix="rcmnet-fuzz-"))
    numbers = itertools.count()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(target.inputs)
    def one(value):
        folder = root / str(next(numbers))
        folder.mkdir()
        endings[survives(lambda: target.read(folder, value), folder, *target.also)] += 1
        shutil.rmtree(folder)

    try:
        one()
    finally:
        shutil.rmtree(root)
    return endings


def share_of(target: Target, total: int) -> int:
    return max(1, round(total * target.share / _SHARES))


@pytest.mark.parametrize("name", TARGETS)
def test_some_inputs(name):
    try_many(TARGETS[name], share_of(TARGETS[name], QUICK))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs(name, capsys):
    endings = try_many(TARGETS[name], share_of(TARGETS[name], ALL))
    with capsys.disabled():
        print(f"\n  {name}: {endings.total()} inputs, {dict(endings)}", end="")
    # Both: otherwise the inputs are too wild, or not wild enough, to tell anything.
    assert endings["ok"] > 0
    assert endings["told"] > 0 or name in ("log", "table")


def test_the_harness_sees_what_it_must(tmp_path):
    import pickle

    secret = tmp_path / "secret"
    secret.write_text("x")
    folder = tmp_path / "allowed"
    folder.mkdir()
    with watched() as events:
        secret.read_text()
        (folder / "new").write_text("y")
        pickle.loads(pickle.dumps(Path("x")))
    assert ("open", str(secret)) in outside(events, folder)
    assert not any(str(folder) in str(what) for event, what in outside(events, folder))
    assert any(event == "pickle.find_class" for event, _ in outside(events, folder))
    with pytest.raises(AssertionError):
        survives(secret.read_text, folder)
    with pytest.raises(ZeroDivisionError):
        survives(lambda: 1 / 0, folder)
