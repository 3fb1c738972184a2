"""The public names: all there, documented, listed in docs/api.md, and its examples run.

``python -m tests.test_public_face`` writes the first lines of the docstrings into the page.
"""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rcmnet_jax

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text()


def listed() -> dict[str, str]:
    """Name -> its line in the tables of docs/api.md."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|$", PAGE, flags=re.MULTILINE))


def first_line(name: str) -> str:
    """First paragraph of a name's docstring, in one line."""
    return " ".join(inspect.getdoc(getattr(rcmnet_jax, name)).split("\n\n")[0].split())


def test_docs_list_every_public_name_and_no_other():
    assert listed().keys() == rcmnet_jax.PUBLIC.keys()


@pytest.mark.parametrize("name", sorted(rcmnet_jax.PUBLIC.keys() - {"MODELS"}))
def test_each_name_is_listed_with_its_docstring(name):
    assert listed()[name] == first_line(name).replace("|", "\\|")


def test_rooms_are_attributes_and_unknown_names_are_not():
    assert rcmnet_jax.models.create_model is rcmnet_jax.create_model
    assert {"train", "grad_cam"} <= set(dir(rcmnet_jax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rcmnet_jax.nothing


def test_importing_the_package_imports_nothing_heavy():
    code = "import rcmnet_jax, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "numpy", "flax"} & set(done.stdout.split())


def test_the_examples_of_the_page_run_in_order():
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"loss \d+\.\d+, accuracy [01]\.\d\d", done.stdout)
    assert "'basophil', 'eosinophil'" in done.stdout


if __name__ == "__main__":
    text = re.sub(
        r"^\| `(\w+)` \|.*$",
        lambda m: m[0] if m[1] == "MODELS" else f"| `{m[1]}` | {first_line(m[1])} |",
        PAGE,
        flags=re.MULTILINE,
    )
    (ROOT / "docs" / "api.md").write_text(text)
