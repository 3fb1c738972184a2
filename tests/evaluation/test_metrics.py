"""Scores against scikit-learn, against values computed by hand, and at their edges."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation import Proportion, evaluate_predictions, scores

PBC = ["basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil"]
PBC += ["platelet"]


def draw(classes, count, *, ties=False, seed=0, strength=1.5):
    """Labels and probabilities; with ties, a few coarse values that still sum to 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    if ties:
        parts = rng.multinomial(8, np.full(classes, 1 / classes), size=count)
        parts[np.arange(count), labels] += 2
        return labels, parts / 10
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += strength
    weight = np.exp(logits)
    return labels, weight / weight.sum(axis=1, keepdims=True)


def evaluate(labels, probabilities, **options):
    names = [f"c{k}" for k in range(probabilities.shape[1])]
    return evaluate_predictions(labels, probabilities, names, **{"samples": 20, **options})


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(classes, ties, seed):
    labels, probabilities = draw(classes, 300, ties=ties, seed=seed)
    result = evaluate(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    every = list(range(classes))
    np.testing.assert_array_equal(
        result.confusion, sk.confusion_matrix(labels, predicted, labels=every)
    )
    assert result.accuracy.value == sk.accuracy_score(labels, predicted)
    assert result.balanced_accuracy.value == pytest.approx(
        sk.balanced_accuracy_score(labels, predicted), abs=1e-14
    )
    assert result.macro_f1.value == pytest.approx(
        sk.f1_score(labels, predicted, average="macro"), abs=1e-14
    )
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    areas = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in every]
    for k, own in enumerate(result.per_class):
        assert own.support == support[k]
        assert (own.precision.value or 0) == pytest.approx(precision[k], abs=1e-14)
        assert own.recall.value == pytest.approx(recall[k], abs=1e-14)
        assert own.f1 == pytest.approx(f1[k], abs=1e-14)
        assert own.auc == pytest.approx(areas[k], abs=1e-12)
    assert result.macro_auc.value == pytest.approx(np.mean(areas), abs=1e-12)
    assert result.nll.value == pytest.approx(sk.log_loss(labels, probabilities, labels=every))
    assert result.brier.value == pytest.approx(
        sk.brier_score_loss(labels, probabilities, labels=every, scale_by_half=False)
    )
    if classes > 5 and not ties:  # scikit-learn breaks ties to the highest index, we to the lowest
        top5 = sk.top_k_accuracy_score(labels, probabilities, k=5, labels=every)
        assert result.top5.value == pytest.approx(top5)
    assert (result.top5 is None) == (classes <= 5)


@pytest.mark.parametrize("seed", range(5))
def test_absent_classes_follow_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 2, 3], size=60)  # 1 and 4 are absent, 4 is never predicted either
    probabilities = rng.dirichlet(np.ones(5), size=60)
    probabilities[:, 4] = 0
    probabilities[:, 1] += 0.2
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    assert 1 in predicted
    result = evaluate(labels, probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "y_pred contains classes not in y_true"
        balanced = sk.balanced_accuracy_score(labels, predicted)
    assert result.balanced_accuracy.value == pytest.approx(balanced, abs=1e-14)
    assert result.macro_f1.value == pytest.approx(
        sk.f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-14
    )
    absent, never = result.per_class[1], result.per_class[4]
    assert absent.recall == Proportion(0, 0, 0.0, 1.0)
    assert absent.recall.value is None
    assert absent.auc is None
    assert absent.precision.value == 0
    assert never.precision.value is None
    assert never.f1 is None
    defined = [c.auc for c in result.per_class if c.auc is not None]
    assert result.macro_auc.value == pytest.approx(np.mean(defined))
    assert result.to_dict()["classes_without_images"] == ["c1", "c4"]
    assert "0/0" in result.table()


def test_by_hand():
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.3, 0.7], [0.2, 0.8]])
    result = evaluate(np.array([0, 0, 1, 1, 1]), probabilities)
    np.testing.assert_array_equal(result.confusion, [[1, 1], [0, 3]])
    assert (result.accuracy.k, result.accuracy.n) == (4, 5)
    assert result.balanced_accuracy.value == pytest.approx((1 / 2 + 1) / 2)
    assert result.macro_f1.value == pytest.approx((2 / 3 + 6 / 7) / 2)
    assert result.macro_auc.value == 1.0
    assert result.nll.value == pytest.approx(-np.log([0.8, 0.4, 0.9, 0.7, 0.8]).mean())
    assert result.brier.value == pytest.approx(2 * (0.04 + 0.36 + 0.01 + 0.09 + 0.04) / 5)


def test_ties_go_to_the_lowest_index():
    even = np.full((3, 3), 1 / 3)
    labels = np.array([0, 1, 2])
    np.testing.assert_array_equal(evaluate(labels, even).confusion[:, 0], [1, 1, 1])
    np.testing.assert_array_equal(scores.top_k_correct(labels, even, 1), [True, False, False])
    np.testing.assert_array_equal(scores.top_k_correct(labels, even, 2), [True, True, False])
    np.testing.assert_array_equal(scores.top_k_correct(labels, even, 99), [True, True, True])
    np.testing.assert_array_equal(scores.one_vs_rest_auc(labels, even), [0.5, 0.5, 0.5])


def test_zero_probability_costs_a_finite_amount():
    result = evaluate(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert result.nll.value == pytest.approx(sk.log_loss([0, 1], [[1.0, 0.0], [1.0, 0.0]]))


def test_one_class_only_is_scored():
    result = evaluate(np.array([1, 1]), np.array([[0.2, 0.8], [0.7, 0.3]]))
    assert result.accuracy.value == 0.5
    assert result.balanced_accuracy.value == 0.5
    assert result.macro_auc.value is None
    assert result.macro_auc.low is None
    assert "not defined for images of one class" in result.table()
    assert result.note.startswith("All images are c1: there is no AUC")
    assert result.note in result.table()
    assert result.to_dict()["note"] == result.note


def test_scores_of_several_classes_need_no_note():
    result = evaluate(*draw(3, 60))
    assert result.note is None
    assert result.to_dict()["note"] is None


def test_the_table_of_two_classes_shows_their_auc_once():
    result = evaluate(*draw(2, 60))
    area = f"{result.macro_auc.value:.4f}"
    assert [f"{c.auc:.4f}" for c in result.per_class] == [area, area]
    assert result.table().count(area) == 1
    assert "macro AUC" not in result.table()
    assert "macro AUC" in evaluate(*draw(3, 60)).table()


def test_dict_is_json_with_types():
    labels, probabilities = draw(8, 200)
    groups = [f"patient{i % 7}" for i in range(200)]
    result = evaluate_predictions(labels, probabilities, PBC, groups=groups, samples=50)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content == result.to_dict()
    assert type(content["accuracy"]["k"]) is int
    assert type(content["accuracy"]["value"]) is float
    assert content["groups"] == 7
    assert np.array(content["confusion"]).sum() == content["n"] == 200
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "nll", "brier"):
        assert content[name]["low"] <= content[name]["value"] <= content[name]["high"], name


def test_table_shows_counts_and_intervals():
    labels = np.repeat(np.arange(8), 243)
    probabilities = np.eye(8)[np.where(np.arange(1944) < 44, (labels + 1) % 8, labels)]
    table = evaluate_predictions(labels, probabilities, PBC, samples=50).table()
    assert "1900/1944" in table
    assert "[96.98, 98.31]" in table  # the interval of the 97.7 in design.md
    assert "199/243" in table
    assert max(map(len, table.splitlines())) <= 120


def test_a_hundred_percent_is_shown_only_when_it_is():
    labels = np.zeros(100_000, int)
    predicted = np.zeros(100_000, int)
    labels[0], predicted[1:3] = 1, 1
    table = evaluate_predictions(labels, np.eye(2)[predicted], ["a", "b"], samples=2).table()
    assert "99997/100000" in table
    assert "100.00  99997" not in table


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "message"),
    [
        ([0, 1], [[0.5, 0.5]], ["a", "b"], "2 labels but 1 rows"),
        ([0, 2], [[0.5, 0.5]] * 2, ["a", "b"], "label 2 is outside 0..1"),
        ([0, -1], [[0.5, 0.5]] * 2, ["a", "b"], "label -1 is outside"),
        ([0, 1], [[0.5, 0.5], [np.nan, 1]], ["a", "b"], "1 of 2 images are not finite"),
        ([0, 1], [[0.5, 0.5]] * 2, ["a", "b", "c"], "3 class names but 2 columns"),
        ([0, 1], [[0.5, 0.5]] * 2, ["a", "a"], "class names repeat"),
        ([0, 1], [[3.0, -1.0]] * 2, ["a", "b"], "softmax"),
        ([0, 1], [[50.0, 50.0]] * 2, ["a", "b"], "softmax"),
        ([0.0, 1.0], [[0.5, 0.5]] * 2, ["a", "b"], "integer class indices"),
        ([0, 1], [[1.0]] * 2, ["a"], "at least 2 classes"),
        ([0, 1], ["x", "y"], ["a", "b"], "must be numbers"),
        (np.zeros(0, int), np.zeros((0, 2)), ["a", "b"], "no images to score"),
    ],
)
def test_bad_input_is_one_clear_line(labels, probabilities, names, message):
    with pytest.raises(DataError, match=message) as error:
        evaluate_predictions(np.array(labels), np.array(probabilities), names)
    assert "\n" not in str(error.value)


def test_imports_neither_jax_nor_matplotlib():
    code = (
        "import sys, rcmnet_jax.evaluation.metrics, rcmnet_jax.evaluation.comparison\n"
        "bad = {'jax', 'flax', 'matplotlib', 'scipy', 'sklearn', 'tensorflow'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "import rcmnet_jax.evaluation as e\n"
        "assert callable(e.plot_curves) and callable(e.write_evaluation)\n"
        "assert 'matplotlib' in sys.modules and 'jax' not in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'plot_curves' in dir(e) and not hasattr(e, 'nonsense')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
