"""CSV files of any spreadsheet."""

import pytest

from rcmnet_jax.data.class_map import read_class_map
from rcmnet_jax.data.tables import read_table
from rcmnet_jax.errors import DataError

ROWS = [["Label", "class"], ["gro\u00dfer", "b"], ["x,y", ""]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("first", ["", "sep"])
def test_encodings_and_delimiters(tmp_path, encoding, delimiter, first):
    lines = [f"sep={delimiter}"] if first else []
    lines += [delimiter.join(row) for row in ROWS]
    (tmp_path / "t.csv").write_bytes("\r\n".join(lines).encode(encoding))
    table = read_table(tmp_path / "t.csv", "the table")
    assert table.columns == ("label", "class")
    assert [row for _, row in table.rows] == [
        {"label": "gro\u00dfer", "class": "b"},
        {"label": "x,y", "class": ""},
    ]
    mapped = read_class_map(tmp_path / "t.csv", ["gro\u00dfer", "x,y"], ["a", "b"])
    assert mapped == {"gro\u00dfer": "b", "x,y": None}


def test_names_match_in_composed_form(tmp_path):
    (tmp_path / "m.csv").write_text("label,class\na\u0308,\u00f6")
    assert read_class_map(tmp_path / "m.csv", ["\u00e4"], ["o\u0308"]) == {"\u00e4": "o\u0308"}


def test_latin_1_is_named(tmp_path):
    (tmp_path / "m.csv").write_bytes("label,class\n\u00e4,b".encode("latin-1"))
    with pytest.raises(DataError, match="save it as 'CSV UTF-8'"):
        read_table(tmp_path / "m.csv", "the table")


def test_a_greek_question_mark_is_no_semicolon(tmp_path):
    (tmp_path / "t.csv").write_text("label;class\n\u037e;b\n", encoding="utf-8")
    assert read_table(tmp_path / "t.csv", "the table").rows == ((2, {"label": ";", "class": "b"}),)


@pytest.mark.parametrize(
    "text",
    [
        "label\tclass, as seen\n1\t2\n",
        "label\tclass; as seen, by two; or three\n1\t2\n",
        'label,"class; as; seen"\n1,2\n',
        '"label\nof, or, by",class\n1,2\n',
    ],
)
def test_other_delimiters_in_the_header(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_table(tmp_path / "t.csv", "the table")
    assert [tuple(row.values()) for _, row in table.rows] == [("1", "2")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_may_start_with_any_letter(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("\u0142abel;class\na;b\n".encode(encoding))
    assert read_table(tmp_path / "t.csv", "the table").columns == ("\u0142abel", "class")


@pytest.mark.parametrize("first", ["", "sep=;\r"])
def test_lines_of_an_old_mac(tmp_path, first):
    (tmp_path / "t.csv").write_bytes(f"{first}label;class\ra, b, c;b\rd, e, f;b\r".encode())
    table = read_table(tmp_path / "t.csv", "the table")
    assert [row["label"] for _, row in table.rows] == ["a, b, c", "d, e, f"]


def test_spaces_before_quotes(tmp_path):
    (tmp_path / "t.csv").write_text('label, "class"\n"x, y", "a, b"\n')
    table = read_table(tmp_path / "t.csv", "the table")
    assert table.rows == ((2, {"label": "x, y", "class": "a, b"}),)
