"""``train.py``: every mistake of a user is one line with the remedy."""

import shutil

import pytest

from rcmnet_jax.cli.train import main

# ml_collections loads config files so.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module.. method:DeprecationWarning")


def test_help_shows_examples_that_name_existing_configs(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "python train.py --config configs/synthetic.py --workdir" in out
    assert "75" in out


def test_without_arguments_it_says_how_and_fails(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_missing_flags_are_told_by_name(error_of):
    assert "--config is missing" in error_of(main, "--workdir", "run")
    assert "--workdir is missing" in error_of(main, "--config", "configs/synthetic.py")


def test_a_config_file_that_is_not_there_is_told_with_those_that_are(train_error):
    line = train_error(config="configs/nothing.py")
    assert "'configs/nothing.py' does not exist" in line
    assert "configs/synthetic.py" in line


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--config.optim.speed=1", "no key config.optim.speed: config.optim has accumulate, "),
        ("--config.nothing=1", "no key config.nothing: config has checkpoint, data, "),
        ("--config.optim.momentum.no=1", "config.optim.momentum is a value"),
        ("--config.train.epochs=many", "many"),
        ("--config.train.epochs=1.5", "1.5"),
        ("--config.train.require_gpu=perhaps", "perhaps"),
        ("--config.optim=fast", "optim"),
        ("--learning_rate=1", "learning_rate"),
        ("stray", "'stray' is not understood"),
        ("--config.optim.schedule=linear", "cosine, constant"),
        ("--config.eval.metric=beauty", "loss, accuracy, balanced_accuracy, macro_f1"),
        ("--config.data.cache=disk", "device, host, stream"),
        ("--config.train.batch_size=1000", "smaller train.batch_size"),
        ("--config.data.source=no/such/folder", "no/such/folder"),
        ("--config.data.source=", "needs a source"),
        ("--config.data.split.csv=no_such.csv", "no_such.csv"),
    ],
)
def test_keys_and_values_that_do_not_exist(train_error, argument, told):
    assert told in train_error(argument)


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("colour=red", "config argument 'colour' is not known here: choose from model"),
        ("size=big", "size='big' is not a int"),
        ("runlocal=perhaps", "runlocal='perhaps' is not a bool"),
        ("model=resnet50,size=32", "model 'resnet50' is not known: choose from resnet18"),
    ],
)
def test_arguments_behind_the_colon(train_error, argument, told):
    assert told in train_error(config=f"configs/cells.py:{argument}")


def test_images_too_small_for_the_network(train_error):
    line = train_error(config="configs/cells.py:model=alexnet,size=32,epochs=2")
    assert "32x32 pixels are too small for this network" in line


def test_one_class_only(train_error, cells, tmp_path):
    shutil.copytree(cells / "blue", tmp_path / "images" / "blue")
    assert "class" in train_error(f"--config.data.source={tmp_path / 'images'}")


def test_an_empty_class(train_error, cells, tmp_path):
    shutil.copytree(cells, tmp_path / "images")
    (tmp_path / "images" / "empty").mkdir()
    assert "empty" in train_error(f"--config.data.source={tmp_path / 'images'}")


def test_a_workdir_that_cannot_be_written(error_of, cells, tmp_path):
    (tmp_path / "file").write_text("")
    config = ["--config", "configs/cells.py:size=32", f"--config.data.source={cells}"]
    line = error_of(main, *config, "--workdir", tmp_path / "file" / "run")
    assert "choose another --workdir" in line


def test_a_config_that_contradicts_the_run_in_the_folder(train_error, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    line = train_error("--config.optim.momentum=0.5")
    assert "optim.momentum was 0.9, is 0.5" in line
    assert "train.epochs was 1, is 2" in line
