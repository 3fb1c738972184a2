"""The notebooks run from top to bottom on small images, and are committed with light outputs."""

import json
from pathlib import Path

import pytest

from tests.training.runs import config_of

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
# What a page or a review can carry.
LARGEST = 200_000


@pytest.fixture(scope="module")
def execute(tmp_path_factory):
    """Runs a notebook in a kernel of its own, in an empty folder; gives its cells."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")

    def run(name, monkeypatch, **environment):
        environment["PYTHONPATH"] = NOTEBOOKS.parent
        # The tests' own draws nothing that a notebook could keep.
        environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        for key, value in environment.items():
            monkeypatch.setenv(key, str(value))
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        resources = {"metadata": {"path": str(tmp_path_factory.mktemp("cwd"))}}
        client = nbclient.NotebookClient(notebook, timeout=300, resources=resources)
        client.execute()
        return notebook.cells

    return run


@pytest.fixture(scope="module")
def source(cells, tmp_path_factory):
    """An RCMNet of one epoch: every part of the notebooks has something to show."""
    from rcmnet_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("runs") / "source"
    config = config_of(cells, "epochs=1", **{"model.name": "rcmnet"})
    train(config, workdir)
    return workdir


def outputs_of(cells):
    """(printed text, number of pictures)."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    text = "".join(
        "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))
        for output in outputs
    )
    return text, sum("image/jpeg" in output.get("data", {}) for output in outputs)


def test_there_are_two():
    assert NAMES == ["grad_cam.ipynb", "transfer.ipynb"]


@pytest.mark.parametrize("name", NAMES)
def test_committed_with_light_outputs_in_order(name):
    assert (NOTEBOOKS / name).stat().st_size < LARGEST
    cells = json.loads((NOTEBOOKS / name).read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    _, pictures = outputs_of(cells)
    assert pictures == 1
    assert not any(o["output_type"] == "error" for cell in code for o in cell["outputs"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_grad_cam_runs(execute, source, cells, monkeypatch):
    ran = execute("grad_cam.ipynb", monkeypatch, WORKDIR=source, IMAGES=cells)
    text, pictures = outputs_of(ran)
    assert pictures == 1
    assert "stage1/block1/cbam: channels 0." in text
    assert "(3, 4, 1, 1) (images, heads, from, to)" in text
    assert "stem" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transfer_runs(execute, source, write_cell_folder, tmp_path, monkeypatch):
    import shutil

    images = write_cell_folder(tmp_path / "two", per_class=12, seed=4)
    shutil.rmtree(images / "pale")
    ran = execute("transfer.ipynb", monkeypatch, WORKDIR=source, IMAGES=images, EPOCHS=2)
    text, pictures = outputs_of(ran)
    assert pictures == 1
    assert "test: " in text
    assert """["['head']['bias']", "['head']['kernel']"]""" in text
