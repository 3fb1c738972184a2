"""State dicts and checkpoints that are nearly right; and ones that want to run code."""

import gc
import itertools
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rcmnet_jax.checkpoints import load_run
from rcmnet_jax.checkpoints.bundle import read_bundle, write_bundle
from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.interop.torch import from_torch_state_dict, to_torch_state_dict
from rcmnet_jax.interop.torch_files import read_torch_file, write_torch_file
from rcmnet_jax.models import create_model
from rcmnet_jax.training.loop import train
from tests.checkpoints.test_bundle import record_with, restored_of, rewritten
from tests.fuzz.harness import survives
from tests.fuzz.inputs import JSON, bent, bent_arrays, bent_json
from tests.training.runs import config_of

SMALL = {"width": 8, "stage_sizes": (1, 1, 1, 1)}
# Orbax forgets coroutines when a read fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected():
    """They are told when they are collected, which must be while the filter above holds."""
    yield
    gc.collect()


def many(count: int):
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    import jax

    model = create_model("resnet18", num_classes=2, **SMALL)
    variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), train=False)
    return to_torch_state_dict("resnet18", variables)


def try_states(state: dict[str, np.ndarray], count: int) -> None:
    @many(count)
    @given(bent_arrays(state))
    def one(bent_state):
        def read():
            variables = from_torch_state_dict("resnet18", bent_state, num_classes=2, **SMALL)
            assert variables["params"]

        survives(read)

    one()


def test_some_state_dicts(state):
    try_states(state, 10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_state_dicts(state):
    try_states(state, 600)


@pytest.fixture(scope="module")
def trained(cells: Path, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("fuzz") / "run"
    train(config_of(cells, "epochs=1"), workdir)
    return workdir


def _files(run: Path) -> list[Path]:
    best = run / "checkpoints" / "best"
    return sorted(p.relative_to(run) for p in best.rglob("*") if p.is_file())


@st.composite
def _damage(draw: st.DrawFn, run: Path) -> tuple[Path, bytes]:
    """A file of the best checkpoint, and what it holds now."""
    file = draw(st.sampled_from(_files(run)))
    data = (run / file).read_bytes()
    try:
        document = json.loads(data)
    except ValueError:
        return file, draw(bent(st.just(data)))
    return file, draw(bent_json(document))


def try_checkpoints(run: Path, root: Path, count: int) -> None:
    numbers = itertools.count()

    @many(count)
    @given(_damage(run))
    def one(change):
        copy = root / str(next(numbers))
        shutil.copytree(run / "checkpoints" / "best", copy / "checkpoints" / "best")
        (copy / change[0]).write_bytes(change[1])
        survives(lambda: load_run(copy), copy)
        shutil.rmtree(copy)

    one()


def test_some_checkpoints(trained, tmp_path):
    try_checkpoints(trained, tmp_path, 6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_checkpoints(trained, tmp_path):
    try_checkpoints(trained, tmp_path, 400)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.rcmnet"
    write_bundle(path, restored_of(), card="# card")
    return path


@st.composite
def _bundle_damage(draw: st.DrawFn, bundle: Path) -> tuple[bytes | None, dict]:
    """Bent bytes of the file, or entries of its record, whose hash is made to fit."""
    if draw(st.booleans()):
        return draw(bent(st.just(bundle.read_bytes()))), {}
    with zipfile.ZipFile(bundle) as archive:
        record = json.loads(archive.read("bundle.json"))
    key = draw(st.sampled_from(sorted(set(record) - {"sha256"})))
    try:
        changed = json.loads(draw(bent_json({key: record[key]})))
    except ValueError:
        changed = None
    value = changed[key] if isinstance(changed, dict) and key in changed else draw(JSON)
    return None, {key: value}


def try_bundles(bundle: Path, root: Path, count: int) -> None:
    numbers = itertools.count()

    @many(count)
    @given(_bundle_damage(bundle))
    def one(change):
        folder = root / str(next(numbers))
        folder.mkdir()
        path = folder / "model.rcmnet"
        data, entries = change
        if data is None:
            rewritten(bundle, path, **{"bundle.json": record_with(bundle, **entries)})
        else:
            path.write_bytes(data)
        survives(lambda: read_bundle(path), folder)
        shutil.rmtree(folder)

    one()


def test_some_bundles(bundle, tmp_path):
    try_bundles(bundle, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_bundles(bundle, tmp_path):
    try_bundles(bundle, tmp_path, 500)


def try_weight_files(state: dict[str, np.ndarray], root: Path, count: int) -> None:
    path = root / "weights.safetensors"
    write_torch_file(path, {name: state[name] for name in sorted(state)[:6]})
    whole = path.read_bytes()

    @many(count)
    @given(bent(st.just(whole)))
    def one(data):
        path.write_bytes(data)
        survives(lambda: read_torch_file(path), root)

    one()


def test_some_weight_files(state, tmp_path):
    try_weight_files(state, tmp_path, 20)


@pytest.mark.slow
def test_many_weight_files(state, tmp_path):
    try_weight_files(state, tmp_path, 500)


class Harm:
    """Pickled, it would touch a file when it is loaded."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_no_file_of_a_checkpoint_is_ever_run(trained, tmp_path):
    harm = pickle.dumps(Harm(tmp_path / "harmed"))
    for number, file in enumerate(_files(trained)):
        copy = tmp_path / str(number)
        shutil.copytree(trained / "checkpoints" / "best", copy / "checkpoints" / "best")
        (copy / file).write_bytes(harm)
        # Orbax may still be closing the files of the copy before.
        survives(lambda copy=copy: load_run(copy), tmp_path)
    assert not (tmp_path / "harmed").exists()
    # It would have: the test can fail.
    pickle.loads(harm)
    assert (tmp_path / "harmed").exists()


def test_a_state_dict_with_an_object_in_it_is_told(state, tmp_path):
    bad = dict(state)
    name = next(iter(bad))
    bad[name] = np.array([Harm(tmp_path / "harmed")], dtype=object)
    with pytest.raises(UserError):
        from_torch_state_dict("resnet18", bad, num_classes=2, **SMALL)
    assert not (tmp_path / "harmed").exists()


def test_a_pixel_cache_with_an_object_in_it_is_built_again(cells, tmp_path, monkeypatch):
    from rcmnet_jax.data import Preprocess, load_pixels, prepare_dataset
    from rcmnet_jax.data.cache import pixels_path

    dataset = prepare_dataset("cell_folder", cells, tmp_path, progress=False)
    preprocess = Preprocess(16, 16)
    path = pixels_path(dataset, preprocess, data_dir=tmp_path)
    path.parent.mkdir()
    np.save(path, np.array([Harm(tmp_path / "harmed")], dtype=object), allow_pickle=True)
    pixels = load_pixels(dataset, preprocess, data_dir=tmp_path, progress=False)
    assert pixels.shape == (60, 16, 16, 3)
    assert not (tmp_path / "harmed").exists()


def test_where_every_checkpoint_is_damaged_loading_says_so(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained / "checkpoints" / "best", copy / "checkpoints" / "best")
    for file in _files(copy):
        (copy / file).write_bytes(b"")
    with pytest.raises(CheckpointError):
        load_run(copy)
