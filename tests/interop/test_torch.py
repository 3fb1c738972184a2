"""State dicts in both directions: exact inverses, foreign prefixes, and strict errors."""

import jax
import numpy as np
import pytest

from rcmnet_jax.errors import ConfigError, UserError
from rcmnet_jax.interop.torch import (
    bot_from_torch,
    cbam_from_torch,
    from_torch_state_dict,
    to_torch_state_dict,
)
from rcmnet_jax.models import CBAM, MODELS, create_model
from tests.interop.rule_weights import rule_state_dict, state_dict_shapes
from tests.models.noise import noise_variables

# Narrow networks: the names and rules are those of the full width.
SMALL = {
    "resnet18": {"width": 8},
    "resnet18_c": {"width": 8, "reduction": 4},
    "resnet18_m": {"width": 8},
    "rcmnet": {"width": 8, "reduction": 4},
    "vgg19": {"stages": ((2, 2), (2, 3), (4, 4), (4, 5), (4, 6)), "hidden": 7},
    "alexnet": {"hidden": 7},
}


def random_variables(name, num_classes=3, **options):
    return noise_variables(create_model(name, num_classes, **options), (1, 96, 64, 3))


@pytest.fixture(scope="module")
def rcmnet():
    """(variables, their state dict) of a narrow RCMNet with a 3x2 map."""
    variables = random_variables("rcmnet", **SMALL["rcmnet"])
    return variables, to_torch_state_dict("rcmnet", variables)


def restore(state, name="rcmnet", num_classes=3, **options):
    return from_torch_state_dict(name, state, num_classes=num_classes, **SMALL[name], **options)


def assert_same_tree(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_from_our_side_is_exact(name):
    variables = random_variables(name, **SMALL[name])
    state = to_torch_state_dict(name, variables)
    assert_same_tree(restore(state, name), variables)


@pytest.mark.parametrize("options", [{"norm": "group"}, {"stem": "small"}, {"spatial_norm": True}])
def test_round_trip_of_options_is_exact(options):
    variables = random_variables("rcmnet", **SMALL["rcmnet"], **options)
    state = to_torch_state_dict("rcmnet", variables)
    assert_same_tree(restore(state, **options), variables)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_c", "resnet18_m", "rcmnet"])
def test_round_trip_from_pytorch_side_keeps_names_order_and_bits(name):
    state = rule_state_dict(name)
    back = to_torch_state_dict(name, from_torch_state_dict(name, state, num_classes=8))
    assert list(back) == list(state)
    for key, array in state.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], array, err_msg=key)


@pytest.mark.parametrize("name", ["vgg19", "alexnet"])
def test_names_and_order_of_the_large_networks(name):
    names = [key for key, _ in state_dict_shapes()[name]]
    assert list(to_torch_state_dict(name, random_variables(name, **SMALL[name]))) == names


def test_first_dense_layer_is_permuted_from_channels_first():
    variables = random_variables("alexnet", **SMALL["alexnet"])
    weight = to_torch_state_dict("alexnet", variables)["classifier.1.weight"]
    maps = np.random.default_rng(1).standard_normal((6, 6, 256)).astype(np.float32)
    ours = maps.reshape(-1) @ variables["params"]["fc1"]["kernel"]
    theirs = weight @ maps.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", ""])
def test_wrappers_of_pytorch_do_not_matter(rcmnet, prefix):
    variables, state = rcmnet
    assert_same_tree(restore({prefix + name: a for name, a in state.items()}), variables)


def test_backbone_prefix_may_be_absent_or_added(rcmnet):
    variables, state = rcmnet
    bare = {name.removeprefix("backbone."): array for name, array in state.items()}
    assert_same_tree(restore(bare), variables)

    variables = random_variables("resnet18", **SMALL["resnet18"])
    state = to_torch_state_dict("resnet18", variables)
    prefixed = {f"backbone.{name}": array for name, array in state.items()}
    assert_same_tree(restore(prefixed, "resnet18"), variables)


def test_files_without_counters_are_accepted(rcmnet):
    variables, state = rcmnet
    old = {name: a for name, a in state.items() if not name.endswith("num_batches_tracked")}
    assert_same_tree(restore(old), variables)


def test_half_precision_comes_out_as_float32(rcmnet):
    variables = restore({name: a.astype(np.float16) for name, a in rcmnet[1].items()})
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_map_size_of_the_position_tables_is_read_off(rcmnet):
    position = restore(rcmnet[1])["params"]["bot"]["mhsa"]["position"]
    assert position["rel_height"].shape == (5, 16)
    assert position["rel_width"].shape == (3, 16)


def test_cbam_authors_modules_inside_a_network():
    options = {**SMALL["resnet18_c"], "spatial_norm": True}
    variables = random_variables("resnet18_c", **options)
    names = {
        ".cbam.mlp.0": ".cbam.ChannelGate.mlp.1",
        ".cbam.mlp.2": ".cbam.ChannelGate.mlp.3",
        ".cbam.conv": ".cbam.SpatialGate.spatial.conv",
        ".cbam.bn": ".cbam.SpatialGate.spatial.bn",
    }
    state = {}
    for name, array in to_torch_state_dict("resnet18_c", variables).items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = array[:, ::-1] if name.endswith("spatial.conv.weight") else array
    assert_same_tree(
        from_torch_state_dict("resnet18_c", state, num_classes=3, **options), variables
    )


def test_cbam_dialects_share_all_but_the_gate():
    paper = cbam_from_torch(rule_state_dict("cbam_paper"), dialect="paper")
    assert set(paper) == {"params"}
    authors = cbam_from_torch(rule_state_dict("cbam_original"), dialect="authors")
    kernel = authors["params"]["spatial"]["conv"]["kernel"]
    swapped = paper["params"]["spatial"]["conv"]["kernel"][:, :, ::-1]
    np.testing.assert_array_equal(kernel, swapped)
    x = np.ones((1, 4, 4, 64), np.float32)
    assert CBAM(spatial_norm=True).apply(authors, x, train=False).shape == x.shape


def test_export_does_not_share_memory_with_the_variables(rcmnet):
    variables, _ = rcmnet
    state = to_torch_state_dict("rcmnet", variables)
    for array in state.values():
        array[...] = 0
    assert np.abs(variables["params"]["stem"]["norm"]["bn"]["scale"]).min() > 0


class TestErrors:
    def test_missing_names_are_counted_and_the_first_three_told(self, rcmnet):
        state = {name: a for name, a in rcmnet[1].items() if ".cbam.mlp." not in name}
        with pytest.raises(
            UserError, match=r"missing layer1\.0\.cbam\.mlp.*\(32 in all\)"
        ) as error:
            restore(state)
        assert "\n" not in str(error.value)
        assert str(error.value).count("cbam") == 3

    def test_unexpected_names(self, rcmnet):
        with pytest.raises(UserError, match=r"unexpected extra\.weight"):
            restore({**rcmnet[1], "extra.weight": np.zeros(3)})

    def test_wrong_shapes(self, rcmnet):
        with pytest.raises(UserError, match=r"conv1\.weight is \(4, 3, 7, 7\), expected \(8, 3"):
            restore({**rcmnet[1], "backbone.conv1.weight": np.zeros((4, 3, 7, 7))})

    def test_even_position_table(self, rcmnet):
        name = "bot.net.0.net.3.pos_emb.rel_height"
        with pytest.raises(UserError, match=r"rel_height is \(4, 16\), expected \(3, 16\)"):
            restore({**rcmnet[1], name: np.zeros((4, 16))})

    def test_other_number_of_classes_names_the_remedy(self, rcmnet):
        with pytest.raises(UserError, match=r"3 classes, not 8.*num_classes=3.*transfer_params"):
            restore(rcmnet[1], num_classes=8)

    def test_the_same_network_twice(self, rcmnet):
        with pytest.raises(UserError, match=r"conv1\.weight twice"):
            restore({**rcmnet[1], "conv1.weight": rcmnet[1]["backbone.conv1.weight"]})

    def test_unknown_model(self):
        with pytest.raises(ConfigError, match="not known: choose from"):
            from_torch_state_dict("resnet50", {}, num_classes=8)
        with pytest.raises(UserError, match="not known: choose from"):
            to_torch_state_dict("resnet50", {"params": {}})

    @pytest.mark.parametrize("name", ["resnet18", "resnet18_c", "resnet18_m", "vgg19", "alexnet"])
    def test_export_under_another_models_name(self, rcmnet, name):
        with pytest.raises(UserError, match=f"model '{name}' does not have"):
            to_torch_state_dict(name, rcmnet[0])

    def test_export_without_a_promised_part(self):
        variables = random_variables("resnet18", **SMALL["resnet18"])
        with pytest.raises(UserError, match="no 'cbam' part"):
            to_torch_state_dict("rcmnet", variables)

    def test_export_of_bare_params(self, rcmnet):
        with pytest.raises(UserError, match="variables must be"):
            to_torch_state_dict("rcmnet", rcmnet[0]["params"])

    def test_blocks(self):
        with pytest.raises(UserError, match="'timm' is not one of paper, authors"):
            cbam_from_torch({}, dialect="timm")
        with pytest.raises(UserError, match=r"no matrix ChannelGate\.mlp\.1\.weight"):
            cbam_from_torch(rule_state_dict("cbam_paper"), dialect="authors")
        with pytest.raises(UserError, match="BottleStack of one block"):
            bot_from_torch(rule_state_dict("cbam_paper"))
        state = rule_state_dict("bot_7x9")
        del state["net.0.net.8.bias"]
        with pytest.raises(UserError, match=r"missing net\.0\.net\.8\.bias"):
            bot_from_torch(state)


@pytest.mark.parametrize("value", [[None, []], [[1], [2, 3]], np.array(["a"]), np.zeros(3, "c8")])
def test_entries_that_are_no_numbers_are_told_by_name(rcmnet, value):
    _, state = rcmnet
    name = next(iter(state))
    with pytest.raises(UserError, match=f"state dict's {name}"):
        restore({**state, name: value})
