"""Surgery on real parameter trees: every leaf accounted for, nothing copied by luck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from rcmnet_jax.errors import CheckpointError, ConfigError
from rcmnet_jax.models import create_model
from rcmnet_jax.transfer import resize_position_table, transfer_params


def filled(name: str, num_classes: int, seed: int, size: int = 64, **options):
    """Variables of a network with random positive numbers, without compiling its initialisation."""
    model = create_model(name, num_classes=num_classes, **options)
    image = jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.abs(rng.standard_normal(leaf.shape)), leaf.dtype), shapes
    )


def leaves(variables):
    return {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(variables).items()}


def test_all_but_the_classifier_is_copied_bit_for_bit():
    source, fresh = filled("rcmnet", 8, 0), filled("rcmnet", 2, 1)
    result, report = transfer_params(source, fresh)
    source, fresh, result = leaves(source), leaves(fresh), leaves(result)
    assert report.fresh == ("params/head/bias", "params/head/kernel")
    assert report.unused == report.fresh
    assert report.resized == ()
    assert set(report.copied) == set(fresh) - set(report.fresh)
    assert any(path.startswith("batch_stats/") for path in report.copied)
    for path, leaf in result.items():
        expected = fresh[path] if path in report.fresh else source[path]
        np.testing.assert_array_equal(leaf, expected, err_msg=path)


def test_the_result_runs():
    source, fresh = filled("resnet18", 8, 0, size=32), filled("resnet18", 2, 1, size=32)
    result, _ = transfer_params(source, fresh)
    model = create_model("resnet18", num_classes=2)
    assert model.apply(result, jnp.zeros((1, 32, 32, 3)), train=False).shape == (1, 2)


def test_resnet18_becomes_the_backbone_of_rcmnet():
    source, fresh = filled("resnet18", 8, 0), filled("rcmnet", 2, 1)
    keep = ("params/head/.*", ".*/cbam/.*", ".*/bot/.*")
    result, report = transfer_params(source, fresh, keep_fresh=keep)
    kernel = "params/stage4/block2/conv2/kernel"
    np.testing.assert_array_equal(leaves(result)[kernel], leaves(source)[kernel])
    assert all("cbam" in p or "bot" in p or "head" in p for p in report.fresh)


def test_a_missing_part_is_an_error_that_names_it():
    with pytest.raises(CheckpointError, match=r"57 leaves.*bot.*is missing.*keep_fresh"):
        transfer_params(filled("resnet18", 8, 0), filled("rcmnet", 2, 1))


def test_another_shape_is_an_error():
    with pytest.raises(CheckpointError, match=r"head/kernel is \(512, 8\), not \(512, 2\)"):
        transfer_params(
            filled("resnet18", 8, 0), filled("resnet18", 2, 1), keep_fresh=("params/head/bias",)
        )


def test_another_type_is_an_error():
    source = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), filled("resnet18", 2, 0))
    with pytest.raises(CheckpointError, match="is bfloat16, not float32"):
        transfer_params(source, filled("resnet18", 2, 1))


@pytest.mark.parametrize("pattern", ["params/haed/.*", "head", "("])
def test_a_pattern_that_matches_nothing_is_an_error(pattern):
    variables = filled("resnet18", 2, 0)
    with pytest.raises(ConfigError, match="pattern"):
        transfer_params(variables, variables, keep_fresh=(pattern,))


def test_values_that_are_not_finite_are_refused_by_name():
    fresh = filled("resnet18", 2, 1)
    for path, value, told in (
        ("params/stem/conv/kernel", np.nan, "NaN or infinite"),
        ("batch_stats/stem/norm/bn/var", np.inf, "NaN or infinite"),
        ("batch_stats/stem/norm/bn/var", -1.0, "negative"),
    ):
        source = leaves(filled("resnet18", 8, 0))
        source[path] = source[path].copy()
        source[path].flat[1] = value
        tree = unflatten_dict({tuple(p.split("/")): leaf for p, leaf in source.items()})
        with pytest.raises(CheckpointError, match=f"{path} has .*{told}"):
            transfer_params(tree, fresh)


def test_a_deeper_backbone_has_no_place_and_attention_may_stay_behind():
    deep = filled("resnet18", 8, 0, stage_sizes=(2, 3, 2, 2))
    with pytest.raises(CheckpointError, match=r"no place.*params/stage2/block3/conv1/kernel"):
        transfer_params(deep, filled("resnet18", 2, 1))
    _, report = transfer_params(filled("rcmnet", 8, 0), filled("resnet18", 2, 1))
    assert any("/cbam/" in path for path in report.unused)


def test_parts_can_be_renamed():
    source = filled("resnet18", 2, 0)
    moved = {**source, "params": {**source["params"]}}
    moved["params"]["classifier"] = moved["params"].pop("head")
    result, report = transfer_params(
        moved,
        filled("resnet18", 2, 1),
        keep_fresh=(),
        rename={r"params/classifier/(.*)": r"params/head/\1"},
    )
    assert report.fresh == ()
    assert report.unused == ()
    np.testing.assert_array_equal(
        result["params"]["head"]["kernel"], source["params"]["head"]["kernel"]
    )


def test_position_tables_follow_the_map():
    source, fresh = filled("resnet18_m", 2, 0, size=128), filled("resnet18_m", 2, 1, size=224)
    result, report = transfer_params(source, fresh)
    names = ("rel_height", "rel_width")
    assert report.resized == tuple(f"params/bot/mhsa/position/{name}" for name in names)
    for name in names:
        before = source["params"]["bot"]["mhsa"]["position"][name]
        after = result["params"]["bot"]["mhsa"]["position"][name]
        assert before.shape == (7, 128)
        assert after.shape == (13, 128)
        # Both ends, the zero offset, and every second row: 13 rows hold the 7 old ones.
        np.testing.assert_allclose(after[::2], before, rtol=1e-6)
        np.testing.assert_allclose(after[1], (before[0] + before[1]) / 2, rtol=1e-5, atol=1e-6)


def test_a_table_of_one_row_is_repeated():
    table = jnp.arange(4.0)[None]
    np.testing.assert_array_equal(resize_position_table(table, 3), np.repeat(table, 3, axis=0))


def test_the_report_reads_as_a_table():
    _, report = transfer_params(filled("resnet18", 8, 0), filled("resnet18", 2, 1))
    assert "fresh       2  params/head/bias, params/head/kernel" in report.table()
    assert set(report.to_dict()) == {"copied", "resized", "fresh", "unused"}
