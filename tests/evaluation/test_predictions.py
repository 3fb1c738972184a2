"""The per-image table comes back bit by bit, and edited tables are refused."""

import csv

import numpy as np
import pytest

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import Predictions, read_predictions, write_predictions

NAMES = ("basophil", "immature granulocyte, all", "p_x")


def make(count=50, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    logits = (20 * rng.normal(size=(count, 3))).astype(dtype)
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Predictions.of(
        rng.integers(3, size=count).astype(np.int32),
        weight / weight.sum(axis=1, keepdims=True),
        files=[f"sub folder/ü, {i}.jpg" for i in range(count)],
        class_names=NAMES,
        sha256=[f"{i:064x}" for i in range(count)],
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_exact(tmp_path, dtype):
    written = make(dtype=dtype)
    path = tmp_path / "deep" / "test_predictions.csv"
    write_predictions(path, written)
    read = read_predictions(path)
    np.testing.assert_array_equal(read.probabilities, written.probabilities)
    np.testing.assert_array_equal(
        read.probabilities.astype(dtype).astype(float), written.probabilities
    )
    np.testing.assert_array_equal(read.labels, written.labels)
    for field in ("files", "sha256", "class_names"):
        assert getattr(read, field) == getattr(written, field)
    assert [p.name for p in path.parent.iterdir()] == ["test_predictions.csv"]


def test_columns_are_those_promised(tmp_path):
    written = make()
    write_predictions(tmp_path / "p.csv", written)
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    head = ["file", "sha256", "label", "predicted", "correct", "probability"]
    assert list(rows[0]) == head + [f"p_{name}" for name in NAMES]
    for i, row in enumerate(rows):
        assert row["label"] == NAMES[written.labels[i]]
        assert row["predicted"] == NAMES[written.predicted[i]]
        assert row["correct"] == str(int(row["label"] == row["predicted"]))
        assert float(row["probability"]) == written.probabilities[i].max()


def test_file_names_that_are_not_utf8_survive(tmp_path):
    name = b"cell_\xff.jpg".decode("utf-8", "surrogateescape")
    written = Predictions.of(
        np.array([0]), np.array([[0.5, 0.5]]), files=[name], class_names=["a", "b"]
    )
    write_predictions(tmp_path / "p.csv", written)
    assert read_predictions(tmp_path / "p.csv").files == (name,)


def test_arrays_that_do_not_fit_are_refused():
    one = {"labels": np.array([0, 1]), "probabilities": np.eye(2), "class_names": ["a", "b"]}
    with pytest.raises(DataError, match="2 predictions, 1 file names and 1 hashes"):
        Predictions.of(**one, files=["x"])
    with pytest.raises(DataError, match="2 predictions, 2 file names and 1 hashes"):
        Predictions.of(**one, files=["x", "y"], sha256=["0"])
    with pytest.raises(DataError, match="'x' was predicted twice"):
        Predictions.of(**one, files=["x", "x"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text.splitlines()[0] + "\n", "holds no images"),
        (lambda text: text.replace("sha256", "hash"), "has other columns"),
        (lambda text: text.replace("p_basophil", "basophil"), "has other columns"),
        (lambda text: text[: len(text) * 2 // 3], "row .*the file is cut or edited"),
        (lambda text: text.replace(",1.0,", ",one,", 1), "row .*(float|contradicts)"),
        (
            lambda text: text.replace(",basophil,", ",basophile,", 1),
            "row .*not a class of this file",
        ),
        (lambda text: text + text.splitlines()[-1] + "\n", "predicted twice"),
        (lambda text: text.replace(",basophil,0,", ",basophil,1,", 1), "contradicts the p_"),
        (lambda text: text.replace("a", "\0", 1), "(columns|CSV)"),
    ],
)
def test_edited_tables_are_refused(tmp_path, edit, message):
    path = tmp_path / "p.csv"
    write_predictions(path, make())
    before = path.read_text(encoding="utf-8")
    after = edit(before)
    assert after != before
    path.write_text(after, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        read_predictions(path)
    assert "\n" not in str(error.value)
    assert "p.csv" in str(error.value)


def test_a_folder_or_nothing_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DataError, match="cannot read predictions"):
            read_predictions(path)


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "p.csv"
    write_predictions(path, make(seed=1))
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left on device; free some space"):
        write_predictions(path, make(seed=2))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.csv"]


def test_a_file_for_a_folder_is_said(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*taken"):
        write_predictions(tmp_path / "taken" / "p.csv", make())


def test_a_table_is_replaced_not_rewritten(tmp_path):
    """Who reads while a new table is written still holds the whole old one."""
    path = tmp_path / "p.csv"
    write_predictions(path, make(seed=1))
    before = path.read_bytes()
    with path.open("rb") as reader:
        write_predictions(path, make(seed=2))
        assert reader.read() == before
    assert path.read_bytes() != before
