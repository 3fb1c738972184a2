"""Scores as tables."""

from rcmnet_jax.explain.score_tables import score_tables


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def test_a_table_for_each_kind_of_score():
    scores = {
        "randomisation": {"head": estimate(0.5, 0.25, 0.75), "stem": estimate(None)},
        "faithfulness": {
            "spot_in_the_middle": {"deletion_area": estimate(1.0), "insertion_area": estimate(0.0)}
        },
    }
    randomisation, faithfulness = score_tables(scores)
    assert randomisation.lines() == [
        "reset down to  correlation",
        "head           0.500 (0.250 to 0.750)",
        "stem           not defined",
    ]
    assert faithfulness.rows == [("spot in the middle", "1.000", "0.000")]
    assert score_tables({}) == []


def test_boxes_have_a_row_for_each_control_and_a_table_of_differences():
    row = {
        "pointing": {"k": 3, "n": 4, **estimate(0.75, 0.3, 0.95)},
        "energy": estimate(0.5, 0.4, 0.6),
        "area": 0.25,
        "empty": 0,
    }
    found = {
        "images": 4,
        "trained": row,
        "per_class": {"ig": row},
        "untrained": {"0": row},
        "controls": {"spot_in_the_middle": row},
        "minus first": {
            "energy_difference": estimate(-0.1, -0.2, 0.0),
            "hits_only_first": 1,
            "hits_only_second": 2,
            "mcnemar_p": 1.0,
        },
    }
    against, difference = score_tables({"localisation": found})
    assert "boxes around 4 cells" in against.caption
    assert [cells[0] for cells in against.rows] == [
        *("trained", "trained: ig", "untrained, seed 0", "spot in the middle"),
    ]
    assert against.rows[0][1:] == ("3/4", "0.750 (0.300 to 0.950)", "0.500 (0.400 to 0.600)",
                                   "0.250", "0")  # fmt: skip
    assert difference.rows == [("minus first", "-0.100 (-0.200 to 0.000)", "1", "2", "1")]
