"""Prediction of folders: what it writes, what it passes over, and that it goes on."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.cli.main import main
from rcmnet_jax.data.preprocess import decode_image
from rcmnet_jax.errors import BadImageError, DataError, UserError
from rcmnet_jax.prediction import open_classifier, predict_folder
from rcmnet_jax.prediction.prediction_table import Partial
from rcmnet_jax.prediction.summary import read_roles, role_of, summarize, summary_table

BUNDLE = Path(__file__).parents[1] / "checkpoints" / "bundles" / "format1.rcmnet"


@pytest.fixture(scope="module")
def classifier():
    return open_classifier(BUNDLE, batch_size=4)


@pytest.fixture
def folder(cells, tmp_path) -> Path:
    """Eleven cells of two kinds, a black image, two bad files and some that are no images."""
    root = tmp_path / "tomorrow"
    for name in ("blue", "pink"):
        (root / name).mkdir(parents=True)
    for path in [*sorted((cells / "blue").iterdir())[:6], *sorted((cells / "pink").iterdir())[:5]]:
        shutil.copy(path, root / path.parent.name / path.name)
    Image.new("RGB", (50, 40)).save(root / "black.png")
    (root / "broken.png").write_bytes((root / "black.png").read_bytes()[:60])
    (root / "no_image.jpg").write_bytes(b"hello")
    (root / "notes.txt").write_text("x")
    (root / ".hidden.png").write_bytes(b"x")
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_three_lines_of_the_readme(folder):
    classifier = open_classifier(BUNDLE)
    verdicts = classifier.predict_files(sorted(folder.glob("blue/*")))
    assert verdicts.top == ["blue"] * 6
    np.testing.assert_allclose(verdicts.probabilities.sum(axis=1), 1)


def test_a_table_of_all_images_in_the_order_of_their_names(classifier, folder, tmp_path):
    summary = predict_folder(classifier, folder, tmp_path / "p.csv", progress=False)
    rows = rows_of(tmp_path / "p.csv")
    files = [row["file"] for row in rows]
    assert files == sorted(files)
    assert len(files) == summary["images"] == 12
    assert list(rows[0])[:8] == [
        *("file", "sha256", "top_1", "probability", "top_2", "top_3", "ood_score", "status"),
    ]
    by_file = {row["file"]: row for row in rows}
    assert by_file["black.png"]["status"] == "not a cell"
    for row in rows:
        probabilities = {k[2:]: float(v) for k, v in row.items() if k.startswith("p_")}
        ranked = sorted(probabilities, key=lambda name: -probabilities[name])
        assert [row["top_1"], row["top_2"], row["top_3"]] == ranked
        assert float(row["probability"]) == probabilities[ranked[0]]
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert summary["ignored_files"] == 2
    assert summary["calibrated"] is True


def test_the_table_says_what_the_network_says_of_each_image_alone(classifier, folder, tmp_path):
    predict_folder(classifier, folder, tmp_path / "p.csv", progress=False)
    network = classifier.network
    for row in rows_of(tmp_path / "p.csv")[::5]:
        pixels = decode_image((folder / row["file"]).read_bytes(), network.preprocess)
        alone = classifier.predict_pixels(pixels[None])
        assert float(row["probability"]) == pytest.approx(alone.probabilities.max(), rel=1e-4)
        assert float(row["ood_score"]) == pytest.approx(alone.score[0], rel=1e-3)
        assert row["status"] == alone.status[0]


def test_bad_files_are_listed_and_make_the_status_1(folder, tmp_path, capsys):
    out = tmp_path / "out" / "p.csv"
    assert (
        main(["predict", "--model", str(BUNDLE), "--images", str(folder), "--out", str(out)]) == 1
    )
    bad = rows_of(out.with_name("p_bad_files.csv"))
    assert [row["file"] for row in bad] == ["broken.png", "no_image.jpg"]
    assert "damaged" in bad[0]["reason"]
    assert "not an image" in bad[1]["reason"]
    captured = capsys.readouterr()
    assert "2 files could not be read" in captured.err
    assert "differential count of accepted images" in captured.out
    for name in ("broken.png", "no_image.jpg"):
        (folder / name).unlink()
    assert (
        main(["predict", "--model", str(BUNDLE), "--images", str(folder), "--out", str(out)]) == 0
    )
    assert not out.with_name("p_bad_files.csv").exists()


def test_a_killed_prediction_goes_on_and_ends_with_the_same_table(
    classifier, folder, tmp_path, monkeypatch
):
    predict_folder(classifier, folder, tmp_path / "whole.csv", progress=False)
    stream = classifier.stream

    def killed(*args, **options):
        for number, group in enumerate(stream(*args, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield group

    monkeypatch.setattr(classifier, "stream", killed)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(classifier, folder, tmp_path / "p.csv", progress=False)
    monkeypatch.undo()
    partial = tmp_path / ".p.csv.partial"
    assert partial.exists()
    assert not (tmp_path / "p.csv").exists()
    # The line that was being written.
    partial.write_text(partial.read_text() + '{"file": "pink/pi')
    summary = predict_folder(classifier, folder, tmp_path / "p.csv", progress=False)
    assert summary["reused_rows"] == 8
    assert (tmp_path / "p.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert not partial.exists()


def test_run_again_only_what_is_new_or_changed_is_predicted(classifier, folder, tmp_path):
    out = tmp_path / "p.csv"
    predict_folder(classifier, folder, out, progress=False)
    first = out.read_text()
    assert predict_folder(classifier, folder, out, progress=False)["reused_rows"] == 12
    assert out.read_text() == first
    (folder / "blue" / "blue_000.png").write_bytes((folder / "pink" / "pink_000.png").read_bytes())
    shutil.copy(folder / "black.png", folder / "new.png")
    (folder / "pink" / "pink_001.png").unlink()
    summary = predict_folder(classifier, folder, out, progress=False)
    assert (summary["images"], summary["reused_rows"]) == (12, 10)
    by_file = {row["file"]: row for row in rows_of(out)}
    assert by_file["blue/blue_000.png"]["top_1"] == by_file["pink/pink_000.png"]["top_1"]
    assert "pink/pink_001.png" not in by_file
    assert predict_folder(classifier, folder, out, progress=False, restart=True)["reused_rows"] == 0


def test_rows_of_another_model_are_not_taken_up(tmp_path):
    partial = Partial(tmp_path / "p", {"weights": "a"})
    partial.append([{"file": "x", "sha256": "1"}])
    partial.close()
    for weights, count in (("a", 1), ("b", 0)):
        again = Partial(tmp_path / "p", {"weights": weights})
        assert len(again.rows) == count
        again.close()


def test_another_top_k_predicts_again(classifier, folder, tmp_path):
    predict_folder(classifier, folder, tmp_path / "p.csv", progress=False)
    summary = predict_folder(classifier, folder, tmp_path / "p.csv", top_k=1, progress=False)
    assert summary["reused_rows"] == 0
    assert "top_2" not in rows_of(tmp_path / "p.csv")[0]


def test_a_run_without_temperature_or_gate_says_so(classifier, folder, tmp_path):
    import dataclasses

    from rcmnet_jax.prediction import Classifier

    bare = Classifier(
        dataclasses.replace(classifier.network, temperature=None, gate=None), batch_size=4
    )
    summary = predict_folder(bare, folder, tmp_path / "p.csv", progress=False)
    assert (summary["status"], summary["calibrated"]) == (None, False)
    assert {row["status"] for row in rows_of(tmp_path / "p.csv")} == {""}
    assert "not calibrated" in summary_table(summary)
    assert "this model has no thresholds" in summary_table(summary)


def test_what_cannot_be_predicted_is_told(classifier, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for images, told in (("missing", "does not exist"), ("empty", "there are no images in")):
        with pytest.raises(DataError, match=told):
            predict_folder(classifier, tmp_path / images, tmp_path / "p.csv")
    with pytest.raises(UserError, match="is a folder"):
        predict_folder(classifier, folder, tmp_path)
    with pytest.raises(BadImageError, match=r"broken\.png"):
        classifier.predict_files([folder / "black.png", folder / "broken.png"])
    with pytest.raises(DataError, match="give uint8"):
        classifier.predict_pixels(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="no images"):
        classifier.predict_pixels(np.zeros((0, 32, 32, 3), np.uint8))


def test_only_bad_files_is_a_table_without_rows(classifier, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    summary = predict_folder(classifier, tmp_path / "in", tmp_path / "p.csv", progress=False)
    assert (summary["images"], summary["bad_files"]) == (0, 1)
    assert rows_of(tmp_path / "p.csv") == []


def test_mistakes_on_the_command_line(folder, tmp_path, capsys):
    argv = ["predict", "--images", str(folder), "--out", str(tmp_path / "p.csv"), "--model"]
    assert main([*argv, str(tmp_path / "none")]) == 2
    assert "holds no trained model" in capsys.readouterr().err
    assert main([*argv, str(BUNDLE), "--batch-size", "0"]) == 2
    assert "--batch-size" in capsys.readouterr().err


class TestDifferential:
    NAMES = ("erythroblast", "lymphocyte", "neutrophil", "platelet")

    def summary(self, *rows):
        return summarize([{"top_1": top, "status": status} for top, status in rows], self.NAMES)

    def test_a_count_worked_out_by_hand(self):
        rows = [("neutrophil", "accept")] * 6 + [("lymphocyte", "accept")] * 2
        rows += [("erythroblast", "accept")] * 4 + [("platelet", "accept")] * 7
        rows += [("lymphocyte", "review")] * 2 + [("neutrophil", "not a cell")] * 5
        summary = self.summary(*rows)
        expected = {"accept": 19, "review": 2, "unlike the training images": 0, "not a cell": 5}
        assert summary["status"] == expected
        count = summary["differential"]["accepted"]
        assert count["white_cells"] == 8
        assert count["percent_of_white"]["neutrophil"]["percent"] == 75
        assert count["erythroblasts_per_100_white"] == 50
        assert count["platelets"] == 7
        both = summary["differential"]["accepted and review"]
        assert both["percent_of_white"]["lymphocyte"]["percent"] == 40
        assert json.loads(json.dumps(summary)) == summary

    def test_what_was_counted_as_what_is_said(self):
        summary = {**self.summary(("platelet", "accept")), "images": 1, "bad_files": 0}
        text = summary_table({**summary, "calibrated": True})
        assert "white         lymphocyte, neutrophil" in text
        assert "platelet      platelet" in text
        assert "warning" not in text

    def test_a_folder_of_another_laboratory_is_told_the_remedy(self):
        rows = [("lymphocyte", "unlike the training images")] * 6 + [("lymphocyte", "accept")] * 5
        summary = {**self.summary(*rows), "images": 11, "bad_files": 0, "calibrated": True}
        assert summary["differential"]["accepted and review"]["images"] == 5
        text = summary_table(summary)
        assert "6 of 11 images are unlike" in text
        assert "docs/other_lab.md" in text

    def test_a_file_maps_classes_to_roles(self, tmp_path):
        (tmp_path / "roles.csv").write_text("class,role\nlymphocyte,none\nplatelet, White\n")
        roles = read_roles(tmp_path / "roles.csv", self.NAMES)
        table = "class;role\r\nlymphocyte;none\r\nplatelet; White\r\n"
        (tmp_path / "excel.csv").write_text(table, encoding="utf-16", newline="")
        assert read_roles(tmp_path / "excel.csv", self.NAMES) == roles
        assert roles == {
            "erythroblast": "erythroblast", "lymphocyte": "none",
            "neutrophil": "white", "platelet": "white",
        }  # fmt: skip
        rows = [{"top_1": name, "status": "accept"} for name in self.NAMES]
        assert summarize(rows, self.NAMES, roles)["differential"]["accepted"]["white_cells"] == 2

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("class,role\nmonocyte,white\n", "no class 'monocyte'"),
            ("class,role\nplatelet,green\n", "line 2: 'green' is not one of white"),
            ("name\nplatelet\n", "lacks the columns class,role"),
        ],
    )
    def test_roles_that_cannot_be_used(self, tmp_path, text, told):
        (tmp_path / "roles.csv").write_text(text)
        with pytest.raises(UserError, match=told):
            read_roles(tmp_path / "roles.csv", self.NAMES)

    def test_no_white_cells_is_no_division_by_zero(self):
        count = self.summary(("platelet", "accept"))["differential"]["accepted"]
        assert count["percent_of_white"]["neutrophil"]["percent"] is None
        assert count["erythroblasts_per_100_white"] is None

    @pytest.mark.parametrize(
        ("name", "role"),
        [
            ("Erythroblasts", "erythroblast"),
            ("NRBC", "erythroblast"),
            ("platelets", "platelet"),
            ("Thrombocyte", "platelet"),
            ("smudge", "none"),
            ("basophil", "white"),
            ("ig", "white"),
            ("CAR-T", "white"),
            ("smudge cell", "none"),
            ("Smudge cells", "none"),
            ("KSC", "none"),
            ("RBC", "none"),
            ("red_blood_cells", "none"),
            ("erythrocyte", "none"),
            ("not a cell", "none"),
            ("StainDeposit", "none"),
            ("Giant platelet", "platelet"),
            ("PlateletClump", "platelet"),
            ("Thrombozyten", "platelet"),
            ("Erythroblast (NRBC)", "erythroblast"),
            ("nRBCs", "erythroblast"),
            ("nucleated red blood cell", "erythroblast"),
            ("Proerythroblast", "erythroblast"),
            ("Normoblasten", "erythroblast"),
            ("ERB", "erythroblast"),
            ("sickle cells", "none"),
            ("Target cell", "none"),
            ("Spherocyte", "none"),
            ("Megakaryocytes", "none"),
            ("malaria parasite", "none"),
            ("bare nucleus", "none"),
            ("None", "none"),
            ("WBC", "white"),
            ("plasma cell", "white"),
            ("macrophage", "white"),
            ("monoblast", "white"),
            ("unstained lymphocyte", "white"),
        ],
    )
    def test_roles_by_name(self, name, role):
        assert role_of(name) == role


@pytest.mark.parametrize(("white", "bits"), [(1023, 10), (4095, 12), (16383, 14), (65535, 0)])
def test_16_bit_files_of_a_narrower_camera_are_named_and_read_with_their_depth(
    tmp_path, white, bits, caplog
):
    (tmp_path / "in").mkdir()
    ramp = np.linspace(0, white, 32 * 32).reshape(32, 32)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "in" / "wide.tif")
    Image.fromarray(np.round(ramp / white * 255).astype(np.uint8)).save(tmp_path / "in" / "8.png")
    argv = ["--model", BUNDLE, "--images", tmp_path / "in", "--out", tmp_path / "p.csv"]
    assert main(["predict", *map(str, argv)]) == 0
    lines = [message for message in caplog.messages if "16-bit" in message]
    assert [line.endswith(f"predict again with --bit-depth {bits}") for line in lines] == (
        [True] if bits else []
    )
    assert all(f"never exceed {white} of 65535" in line for line in lines)
    caplog.clear()
    # Again, when the rows are there.
    assert main(["predict", *map(str, argv)]) == 0
    assert [message for message in caplog.messages if "16-bit" in message] == lines
    caplog.clear()
    assert main(["predict", *map(str, argv), "--bit-depth", str(bits)]) == 0
    assert "16-bit" not in caplog.text
    of_8_bits, of_16_bits = rows_of(tmp_path / "p.csv")
    assert of_16_bits["top_1"] == of_8_bits["top_1"]
    assert float(of_16_bits["probability"]) == pytest.approx(float(of_8_bits["probability"]), 0.01)
