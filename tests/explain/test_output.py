"""Names of files and runs, and what counts as a failure."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.images import CellImage, ReadImages
from rcmnet_jax.explain.network_maps import NetworkMaps, class_id_of
from rcmnet_jax.explain.output import failures, unique_names

NAMES = ("ig", "monocyte", "7")


def run_of(probabilities, *, trained=True):
    """A run of which only the probabilities matter."""
    network = SimpleNamespace(class_names=NAMES)
    probabilities = np.asarray(probabilities, float)
    return NetworkMaps("x", network, None, None, None, None, probabilities, (), trained)


def images_of(*classes):
    return ReadImages(tuple(CellImage(f"{i}", c, b"", (9, 9)) for i, c in enumerate(classes)), ())


def test_runs_of_the_same_folder_name_are_told_apart():
    assert unique_names([Path("/a/run"), Path("/b/other")]) == ["run", "other"]
    assert unique_names([Path("/runs/rcmnet/seed0")]) == ["rcmnet/seed0"]
    folds = [Path("/c/scratch/seed0/fold0"), Path("/c/frozen/seed0/fold0")]
    assert unique_names(folds) == ["scratch/seed0/fold0", "frozen/seed0/fold0"]
    assert unique_names([Path("/a/run"), Path("/a/run")]) == ["run (1)", "run (2)"]
    checkpoints = [Path("/runs/a/checkpoints/best"), Path("/runs/b/checkpoints/best/250")]
    assert unique_names(checkpoints) == ["a", "b"]
    # Names that become one file name are not apart.
    assert unique_names([Path("/x/a b"), Path("/y/a_b")]) == ["x/a b", "y/a_b"]


def test_failures_are_the_trained_networks_errors_the_most_confident_first():
    read = images_of("ig", "ig", "ig", "unheard of", None)
    sure_error, error, right = [0.05, 0.9, 0.05], [0.3, 0.4, 0.3], [0.8, 0.1, 0.1]
    run = run_of([error, right, sure_error, error, error])
    # Nothing is known of the last two, so they are no errors.
    assert failures(read, [run]) == [2, 0]
    other = run_of([right, error, right, right, right])
    assert failures(read, [run, other]) == [2, 0, 1]
    assert failures(read, [dataclasses.replace(run, trained=False)]) == []


@pytest.mark.parametrize(("wanted", "found"), [("monocyte", 1), ("0", 0), ("7", 2)])
def test_classes_by_name_or_number(wanted, found):
    assert class_id_of(SimpleNamespace(class_names=NAMES), wanted) == found


@pytest.mark.parametrize("wanted", ["3", "-1", "band", ""])
def test_classes_that_do_not_exist(wanted):
    with pytest.raises(UserError, match="the network has 0 ig, 1 monocyte, 2 7"):
        class_id_of(SimpleNamespace(class_names=NAMES), wanted)
