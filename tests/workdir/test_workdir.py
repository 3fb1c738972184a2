"""One run a folder, and the same config when it goes on."""

import errno
import json
import os

import pytest

from configs import synthetic
from rcmnet_jax.errors import ConfigError, UserError
from rcmnet_jax.workdir.config_file import flatten_config, require_same_config, write_config
from rcmnet_jax.workdir.disk_errors import disk_errors_as_user_errors
from rcmnet_jax.workdir.lock import locked_workdir


def test_a_second_run_in_the_folder_is_refused_and_told_who_has_it(tmp_path):
    with (
        locked_workdir(tmp_path / "run"),
        pytest.raises(UserError, match=rf"in use .*process {os.getpid()}"),
        locked_workdir(tmp_path / "run"),
    ):
        pass
    with locked_workdir(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="another --workdir"),
        locked_workdir(tmp_path / "file" / "run"),
    ):
        pass


def test_a_flat_config_has_dotted_keys_and_typed_values():
    flat = flatten_config(synthetic.get_config())
    assert flat["optim.learning_rate"] == 0.05
    assert flat["data.split.protocol"] == "strict"
    assert flat["train.epochs"] == 8


def test_the_same_config_is_welcome_again_tuples_included(tmp_path):
    config = synthetic.get_config()
    config.model.stage_sizes = (1, 1, 1, 1)
    require_same_config(config, tmp_path)
    write_config(config, tmp_path)
    require_same_config(config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["epochs"] == 8


def test_a_config_that_differs_is_refused_by_the_key_and_both_values(tmp_path):
    write_config(synthetic.get_config(), tmp_path)
    changed = synthetic.get_config()
    changed.optim.learning_rate = 0.1
    with pytest.raises(ConfigError, match=r"optim\.learning_rate was 0\.05, is 0\.1"):
        require_same_config(changed, tmp_path)
    # A key of another network's config, there on one side only.
    with pytest.raises(ConfigError, match=r"model\.name was 'rcmnet', is 'vgg19'"):
        require_same_config(synthetic.get_config("model=vgg19"), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.source", "elsewhere"),
        ("data.data_dir", "elsewhere"),
        ("data.cache", "host"),
        ("eval.batch_size", 7),
        ("checkpoint.every_steps", 3),
        ("log.every_steps", 1),
        ("log.progress", False),
    ],
)
def test_keys_that_change_no_number_may_differ(tmp_path, key, value):
    write_config(synthetic.get_config(), tmp_path)
    changed = synthetic.get_config()
    changed.update_from_flattened_dict({key: value})
    require_same_config(changed, tmp_path)


def test_a_damaged_config_file_is_a_user_error(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        require_same_config(synthetic.get_config(), tmp_path)


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "make it writable")]
)
def test_a_disk_that_takes_nothing_is_a_user_error(tmp_path, code, remedy):
    with pytest.raises(UserError, match=remedy), disk_errors_as_user_errors(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "metrics.jsonl"))


def test_other_system_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors_as_user_errors(tmp_path):
        (tmp_path / "missing").read_text()


@pytest.mark.parametrize("group", [None, 3, "gone"])
def test_a_config_that_lost_a_group_is_another_config(tmp_path, group):
    config = synthetic.get_config()
    write_config(config, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    if group == "gone":
        del saved["data"]
    else:
        saved["data"] = group
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ConfigError, match="another config"):
        require_same_config(config, tmp_path)
