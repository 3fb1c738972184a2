"""Small folders of real image files, and the shared real data where they are at hand."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(os.environ.get("RCMNET_SHARED", Path(__file__).parents[3] / "shared")) / "data"


def image_bytes(
    seed: int = 0, *, height: int = 24, width: int = 20, format: str = "JPEG", mode: str = "RGB"
) -> bytes:
    """A file with random smooth colours; the same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height)).convert(mode)
    file = io.BytesIO()
    image.save(file, format=format)
    return file.getvalue()


@pytest.fixture
def encode() -> Callable[..., bytes]:
    return image_bytes


@pytest.fixture
def class_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes class folders: ``class_folder({"a": 5, "b": 5}) -> Path``."""

    def write(classes: dict[str, int], name: str = "images") -> Path:
        root = tmp_path / name
        for number, (label, count) in enumerate(classes.items()):
            (root / label).mkdir(parents=True)
            for i in range(count):
                name = f"{Path(label).name}_{i:03d}.jpg"
                (root / label / name).write_bytes(image_bytes(1000 * number + i))
        return root

    return write


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images beside the project; the test skips where there is none."""
    if not (SHARED / "pbc").is_dir():
        pytest.skip(f"no real images at {SHARED} (set RCMNET_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def pbc_part(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six real images of each PBC class, with the known junk file, pair and conflict."""
    root = tmp_path_factory.mktemp("pbc")
    extra = {
        "neutrophil": [".DS_169665.jpg", "BNE_191112.jpg"],
        "eosinophil": ["EO_225902.jpg"],
        "basophil": ["BA_685720.jpg", "BA_546746.jpg"],
    }
    for folder in sorted((shared / "pbc").iterdir()):
        (root / folder.name).mkdir()
        names = sorted(path.name for path in folder.glob("[A-Z]*.jpg"))[:6]
        for name in [*names, *extra.get(folder.name, [])]:
            (root / folder.name / name).symlink_to(folder / name)
    return root
