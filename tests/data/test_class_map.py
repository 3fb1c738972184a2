"""Their classes and ours: every mistake is one line."""

import pytest

from rcmnet_jax.data.class_map import read_class_map
from rcmnet_jax.errors import DataError

OURS = ("ig", "neutrophil", "platelet")


def test_a_map_names_leaves_out_and_may_say_more_than_is_asked(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("\ufefflabel,class\nNeut,neutrophil\njunk,\n\nband,neutrophil\nother,ig\n")
    found = read_class_map(path, ["Neut", "junk", "band"], OURS)
    assert found == {"Neut": "neutrophil", "junk": None, "band": "neutrophil"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a class map"),
        ("a,b\n", "is not a class map"),
        ("label,class\nNeut,neutro\n", "'neutro' is no class of the network: choose from ig"),
        ("label,class\nNeut,ig\nNeut,ig\n", "maps 'Neut' again"),
        ("label,class\nNeut\n", "row 2 has 1 fields"),
        ("label,class\nother,ig\n", "does not map Neut"),
        ("label,class\nNeut,\n", "leaves all images out"),
        ('label,class\n"Neut,ig\n', "row 2: unexpected end"),
    ],
)
def test_mistakes(tmp_path, text, told):
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read_class_map(path, ["Neut"], OURS)


def test_a_map_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_class_map(tmp_path / "no.csv", ["a"], OURS)
