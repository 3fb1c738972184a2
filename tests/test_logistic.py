"""The small logistic regression: against scikit-learn, and honest where there is nothing."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from rcmnet_jax.logistic import cross_validated, fit_logistic


def blobs(count=300, classes=3, distance=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, 5)) * distance
    return centres[labels] + rng.normal(size=(count, 5)), labels


def test_it_is_scikit_learns():
    x, y = blobs(distance=0.7)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    # Mean loss plus penalty / 2 |w|^2 is theirs with C = 1 / (N penalty).
    theirs = LogisticRegression(C=1 / (len(y) * 1e-2), tol=1e-10, max_iter=5000).fit(z, y)
    ours = fit_logistic(x, y, 3, penalty=1e-2)
    np.testing.assert_allclose(
        np.exp(ours.log_probabilities(x)), theirs.predict_proba(z), atol=2e-4
    )


def test_classes_count_the_same_whatever_their_size():
    x, y = blobs(400, 2, distance=0.6)
    keep = (y == 0) | (np.arange(400) < 60)
    guess = fit_logistic(x[keep], y[keep], 2).log_probabilities(x).argmax(axis=1)
    recalls = [float((guess[y == k] == k).mean()) for k in (0, 1)]
    assert abs(recalls[0] - recalls[1]) < 0.2


def test_noise_is_chance_and_copies_do_not_help():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(120, 30)), np.arange(120) % 2
    # Every image eight times: parted, the copies would give the label away.
    x, y = np.tile(x, (8, 1)), np.tile(y, 8)
    groups = np.tile(np.arange(120), 8)
    whole = cross_validated(x, y, 2, groups_N=groups).argmax(axis=1)
    parted = cross_validated(x, y, 2).argmax(axis=1)
    assert 0.35 < (whole == y).mean() < 0.65
    assert (parted == y).mean() > 0.6


def test_constant_features_and_absent_classes_do_no_harm():
    x, y = np.zeros((20, 2)), np.arange(20) % 2
    result = cross_validated(x, y, 3)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(np.exp(result).sum(axis=1), 1)
