"""``rcmnet data``: audit, build, split, draw."""

import json

import pytest
from PIL import Image

from rcmnet_jax.cli.main import main


def test_an_audit_says_what_is_there_and_changes_nothing(cells, tmp_path, capsys):
    before = sorted(cells.rglob("*"))
    # The discs look alike, within and across classes: verdict act.
    assert main(["data", "audit", str(cells), "--json", str(tmp_path / "audit.json")]) == 1
    assert sorted(cells.rglob("*")) == before
    assert "60" in capsys.readouterr().out
    assert json.loads((tmp_path / "audit.json").read_text())


def test_an_audit_with_findings_ends_with_status_1(write_cell_folder, tmp_path, capsys):
    folder = write_cell_folder(tmp_path / "images", per_class=3)
    (folder / "blue" / "junk.png").write_bytes(b"no image")
    assert main(["data", "audit", str(folder), "--threshold", "0.999"]) == 1
    assert "junk.png" in capsys.readouterr().out


def _as_jpeg(file):
    Image.open(file).save(file.with_suffix(".jpg"))
    file.unlink()


def _as_12_bits(file):
    Image.new("I;16", (32, 32), 4095).save(file.with_suffix(".tif"))


@pytest.mark.parametrize(
    ("change", "verdict", "status"),
    [(None, "fine", 0), (_as_jpeg, "look", 0), (_as_12_bits, "act", 1)],
)
def test_the_status_of_an_audit_follows_its_verdict(
    write_cell_folder, tmp_path, capsys, change, verdict, status
):
    folder = write_cell_folder(tmp_path / "images", per_class=3)
    if change:
        change(min((folder / "blue").iterdir()))
    argv = ["data", "audit", str(folder), "--threshold", "0.999"]
    assert main(argv) == status
    assert capsys.readouterr().out.rstrip().endswith(f"verdict: {verdict}")
    # The quick look has the same findings here, as no shortcut is tested for so few images.
    assert main(["data", "audit", str(folder), "--quick"]) == status


def test_build_then_split_writes_a_csv_that_training_takes(cells, tmp_path, capsys):
    assert main(["data", "build", str(cells)]) == 0
    out = tmp_path / "split.csv"
    assert main(["data", "split", str(cells), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"--config.data.split.csv={out}" in told
    assert len([line for line in out.read_text().splitlines() if ".png" in line]) == 60


def test_drawn_cells_are_called_synthetic(tmp_path, capsys):
    argv = ["data", "synthetic", str(tmp_path / "drawn"), "--kind", "cart", "--per-class", "1"]
    assert main(argv) == 0
    assert "synthetic" in capsys.readouterr().out
    assert len([p for p in (tmp_path / "drawn").rglob("*") if p.suffix in (".jpg", ".png")]) == 2


def test_show_writes_a_picture_of_the_augmented_images(cells, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    argv = ["--size", "16", "--per-class", "1", "--samples", "2", "--out", str(out)]
    assert main(["data", "show", str(cells), *argv]) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 18, 3 * 18)


def test_show_with_an_unknown_augmentation_or_nothing_to_draw(rcmnet_error, cells, tmp_path):
    argv = ["data", "show", cells, "--out", tmp_path / "sheet.png"]
    assert "strong" in rcmnet_error(*argv, "--augment", "wild")
    assert "--samples" in rcmnet_error(*argv, "--samples", "0")


@pytest.mark.parametrize("action", ["audit", "build"])
def test_a_path_that_is_not_there(rcmnet_error, action):
    assert "no/such/folder" in rcmnet_error("data", action, "no/such/folder")


@pytest.mark.parametrize("value", ["0", "1.5", "-0.1"])
def test_an_impossible_fraction(rcmnet_error, cells, tmp_path, value):
    line = rcmnet_error(
        "data", "split", cells, "--out", tmp_path / "split.csv", f"--test-fraction={value}"
    )
    assert "fraction" in line


def test_a_group_that_the_images_do_not_have(rcmnet_error, cells, tmp_path):
    argv = ["data", "split", cells, "--out", tmp_path / "split.csv", "--group-by", "patient"]
    assert "patient" in rcmnet_error(*argv)


def test_nothing_to_draw(rcmnet_error, tmp_path):
    rcmnet_error("data", "synthetic", tmp_path / "drawn", "--per-class", "0")


def test_a_csv_that_cannot_be_written(rcmnet_error, cells, tmp_path):
    (tmp_path / "file").write_text("")
    rcmnet_error("data", "split", cells, "--out", tmp_path / "file" / "split.csv")
