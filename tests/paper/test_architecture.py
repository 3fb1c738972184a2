"""Table 4 counts the modules, not a list."""

import pytest

from rcmnet_jax.paper.architecture import architecture_rows, last_map, parameter_counts

TOTALS = {
    "resnet18": (11_180_616, 11_177_538),
    "resnet18_c": (11_270_480, 11_267_402),
    "resnet18_m": (11_713_096, 11_710_018),
    "rcmnet": (11_802_960, 11_799_882),
    "vgg19": (139_603_016, 139_578_434),
    "alexnet": (57_036_616, 57_012_034),
}


@pytest.mark.parametrize("name", TOTALS)
def test_parts_sum_to_the_published_counts(name):
    assert tuple(sum(parameter_counts(name, k).values()) for k in (8, 2)) == TOTALS[name]


def test_the_last_map_is_twelve_by_twelve():
    assert last_map("rcmnet") == (12, 12, 512)


def test_rows_have_a_cell_for_each_network():
    assert {len(row) for row in architecture_rows()} == {7}
