"""The page stands by itself and says what the JSON says; what is not known is said too."""

import html.parser
import itertools
import json
import re
import shutil

import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_run
from rcmnet_jax.cli.main import main
from rcmnet_jax.errors import UserError
from rcmnet_jax.report import ReportOptions, write
from rcmnet_jax.report.claim_checklist import ITEMS, NO, YES
from rcmnet_jax.scoring.run_data import open_run_data
from rcmnet_jax.scoring.score import score_part
from rcmnet_jax.training.loop import train
from tests.training.runs import config_of

SECTIONS = {
    *("scores", "confusion", "worst", "calibration", "review", "subgroups"),
    *("compared", "data", "curves", "card", "claim", "provenance"),
}


class Page(html.parser.HTMLParser):
    """Elements of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, {name: value or "" for name, value in attributes}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.found if "id" in a]


def test_the_page_needs_nothing_but_itself(report):
    text, _ = report
    page = Page(text)
    assert not page.all("script")
    assert not page.all("link")
    addresses = [a[key] for _, a in page.found for key in ("src", "href") if key in a]
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text


def test_it_can_be_used_without_eyes_and_without_a_mouse(report):
    page = Page(report[0])
    assert len(page.ids) == len(set(page.ids))
    assert all(image.get("alt") for image in page.all("img"))
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in page.ids
    assert set(page.ids) >= SECTIONS
    # What scrolls can be reached by keyboard, and has a name.
    scrolled = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert scrolled
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolled)
    headings = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))
    assert all("scope" in a for a in page.all("th"))


def test_every_filled_cell_leads_to_its_images(report):
    text, content = report
    page = Page(text)
    confusion = np.array(content["scores"]["confusion"])
    cells = {f"#cell-{i}-{j}" for i, j in zip(*np.nonzero(confusion), strict=True)}
    links = {a["href"] for a in page.all("a") if a["href"].startswith("#cell-")}
    assert links == cells
    for error in content["errors"]:
        assert text.count(error["file"]) >= 1
    assert len(content["errors"]) == confusion.sum() - np.trace(confusion)


def test_page_and_json_agree(report):
    text, content = report
    accuracy = content["scores"]["accuracy"]
    assert f"({accuracy['k']}/{accuracy['n']})" in text
    assert content["provenance"]["weights_sha256"] in text
    for key in ("data_sha256", "split_sha256"):
        assert content["provenance"][key] in text
    for row in content["review"]["budgets"]:
        # 57 validation images are enough for budgets from 10 % on.
        assert (row["threshold"] is None) == (row["budget"] < 0.1)
        assert (row["reason"] or f"{row['threshold']:.4f}") in text
    for item in content["claim"]:
        assert item["text"] in text
    calibration = content["calibration"]
    assert (calibration["reason"] or f"{calibration['temperature']:.3f}") in text


def test_temperature_and_threshold_come_from_validation_alone(report, run):
    from rcmnet_jax.evaluation import fit_temperature
    from rcmnet_jax.evaluation.selective import review_threshold

    _, content = report
    validation = score_part(open_run_data(load_run(run)), "val")
    fit = fit_temperature(validation.logits, validation.labels)
    assert content["calibration"]["temperature"] == pytest.approx(fit.temperature)
    assert content["calibration"]["reason"] == fit.reason
    first = content["review"]["budgets"][0]
    assert first["budget"] == 0.25
    assert first["threshold"] == pytest.approx(review_threshold(validation.probabilities, 0.25))
    assert first["chosen_on"] == "the validation part"


def test_few_validation_images_give_no_temperature_and_no_threshold(write_cell_folder, tmp_path):
    few = write_cell_folder(tmp_path / "few", per_class=20)
    train(config_of(few, "epochs=1"), tmp_path / "run")
    argv = ["evaluate", "--model", str(tmp_path / "run"), "--report", "--worst", "0"]
    assert main(argv) == 0
    content = json.loads((tmp_path / "run" / "test_report.json").read_text())
    calibration = content["calibration"]
    assert (calibration["temperature"], calibration["after"]) == (None, None)
    assert all(row["threshold"] is None for row in content["review"]["budgets"])
    page = (tmp_path / "run" / "test_report.html").read_text()
    assert f"No temperature was fitted: {calibration['reason']}" in page
    assert calibration["reason"].endswith("at least 50 validation images, and there are 3")
    assert "No threshold was chosen" in page
    assert "Reliability after temperature scaling" not in page


def test_two_classes_show_their_auc_once(write_cell_folder, tmp_path):
    two = write_cell_folder(tmp_path / "two", per_class=20)
    shutil.rmtree(two / "pale")
    train(config_of(two, "epochs=1"), tmp_path / "run")
    assert main(["evaluate", "--model", str(tmp_path / "run"), "--report", "--worst", "0"]) == 0
    page = (tmp_path / "run" / "test_report.html").read_text()
    assert page.count('<th scope="row">AUC</th>') == 1
    assert '<th scope="col">AUC</th>' not in page
    assert "Macro AUC" not in page


def test_provenance_is_that_of_the_run(report, run):
    from rcmnet_jax.checkpoints import tree_sha256

    _, content = report
    restored = load_run(run)
    provenance = content["provenance"]
    assert provenance["weights_sha256"] == tree_sha256(restored.variables)
    assert provenance["data_sha256"] == restored.meta["data"]["sha256"]
    assert provenance["config"] == restored.meta["config"]
    assert provenance["trained_with"]["packages"]["jax"]


def test_the_checklist_ticks_nothing_without_evidence(report):
    _, content = report
    claim = content["claim"]
    assert [item["item"] for item in claim] == list(range(1, len(ITEMS) + 1))
    assert all(item["evidence"] for item in claim if item["status"] != NO)
    assert not any(item["evidence"] for item in claim if item["status"] == NO)
    status = {item["item"]: item["status"] for item in claim}
    # Ethics, annotators, registration, funding: no run knows them. Another lab: not here.
    assert {status[i] for i in (1, 3, 12, 14, 16, 18, 32, 34, 40, 42)} == {NO}
    assert status[21] == status[29] == status[36] == YES


def test_an_upper_bound_is_called_one(report):
    text, content = report
    assert content["run"]["split_note"].startswith("image-level: an upper bound")
    assert "Image-level: an upper bound" in text
    assert any("upper bound" in line for line in content["card"]["Limitations"])


def test_against_itself_nothing_differs(report):
    comparison = report[1]["comparison"]
    assert comparison["mcnemar_p"] == 1
    assert comparison["only_first"] == comparison["only_second"] == 0
    assert report[1]["seeds"]["deviation"] == 0


def test_columns_of_a_manifest_and_of_a_table_make_subgroups(cells, run, tmp_path):
    files = sorted(cells.rglob("*.png"))
    lines = [f"{f.relative_to(cells)},{'thick' if i % 2 else 'thin'}" for i, f in enumerate(files)]
    table = tmp_path / "smears.csv"
    table.write_text("file,smear\n" + "\n".join(lines) + "\n")
    argv = ["evaluate", "--workdir", str(run), "--report", "--out", str(tmp_path), "--worst", "0"]
    assert main([*argv, "--columns", str(table)]) == 0
    content = json.loads((tmp_path / "test_report.json").read_text())
    rows = content["subgroups"]["tables"]["smear"]
    assert {row["value"] for row in rows} == {"thick", "thin"}
    assert sum(row["n"] for row in rows) == content["scores"]["n"]
    assert content["worst"]["shown"] == []
    claim = {item["item"]: item["status"] for item in content["claim"]}
    assert claim[31] == NO


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--review-budget", "1"], "share of the images"),
        (["--worst", "-1"], "negative"),
        (["--columns", "no_such.csv"], "no_such.csv"),
        (["--against", "no_such_run"], "no_such_run"),
    ],
)
def test_wrong_options_are_one_line(run, tmp_path, capsys, argv, told):
    given = ["evaluate", "--workdir", str(run), "--report", "--out", str(tmp_path), *argv]
    assert main(given) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert told in err.splitlines()[-1]


def test_a_run_without_its_log_still_has_a_report(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "metrics.jsonl").unlink()
    assert main(["evaluate", "--workdir", str(copy), "--report", "--worst", "0"]) == 0
    assert "log is missing" in (copy / "test_report.html").read_text()


def test_a_bundle_has_a_report_too(cells, run, tmp_path):
    # A bundle does not tell on what machine it was trained: its record is shorter than a run's.
    bundle = tmp_path / "model.rcmnet"
    assert main(["export", "--workdir", str(run), "--out", str(bundle)]) == 0
    argv = ["evaluate", "--workdir", str(bundle), "--source", str(cells), "--out", str(tmp_path)]
    assert main([*argv, "--report", "--worst", "0"]) == 0
    assert "Trained with" in (tmp_path / "test_report.html").read_text()


def auc_headings(content):
    page = write.render_page(content, {"figures": {}, "cells": [], "worst": []})
    return re.findall("<th[^>]*>([^<]*AUC[^<]*)</th>", page)


def test_two_classes_have_one_auc(report):
    _, content = report
    scores = content["scores"]
    assert auc_headings(content) == ["Macro AUC (one class against the others)", "AUC"]
    two = {
        **scores,
        "class_names": scores["class_names"][:2],
        "per_class": scores["per_class"][:2],
        "confusion": [[3, 1], [0, 4]],
    }
    assert auc_headings({**content, "scores": two}) == ["AUC"]


def test_a_budget_that_is_no_share():
    with pytest.raises(UserError, match="share of the images"):
        ReportOptions(review_budget=-0.1)
