"""What is planned, what is skipped, and what is refused."""

import dataclasses
from pathlib import Path

import pytest

from rcmnet_jax.errors import ConfigError, UserError
from rcmnet_jax.paper.estimate import OVERHEAD_SECONDS, estimate_seconds, format_duration
from rcmnet_jax.paper.plan import ReproductionSettings, find_configs, make_plan
from rcmnet_jax.paper.published import TOP1
from rcmnet_jax.workdir.config_file import write_config


@pytest.fixture
def settings_of(tmp_path):
    def make(**changes) -> ReproductionSettings:
        settings = ReproductionSettings(out=tmp_path, pbc="PBC", cart="CART")
        return dataclasses.replace(settings, **changes)

    return make


def plan(settings: ReproductionSettings):
    return make_plan(settings, find_configs())


def test_the_whole_paper_is_eighteen_runs_a_seed(settings_of):
    runs = plan(settings_of(seeds=3))
    assert len(runs) == 6 * 3 * 3
    assert len({run.workdir for run in runs}) == len(runs)


def test_native_runs_are_those_of_the_paper(settings_of):
    by_stage = {run.stage: run.config for run in plan(settings_of(models=("rcmnet",)))}
    pbc, scratch, transfer = (by_stage[s] for s in ("pbc", "scratch", "transfer"))
    assert (pbc.data.height, pbc.data.width, pbc.train.epochs) == (363, 360, 30)
    assert pbc.data.split.protocol == "paper"
    assert (scratch.data.height, scratch.train.epochs, scratch.data.views) == (384, 20, "paper")
    assert transfer.init.trainable == ("head/.*",)
    assert scratch.init.checkpoint == ""


def test_a_transfer_comes_after_the_run_whose_weights_it_takes(settings_of):
    runs = plan(settings_of(seeds=2, protocols=("strict", "paper")))
    places = {str(run.workdir): number for number, run in enumerate(runs)}
    transfers = [(n, run) for n, run in enumerate(runs) if run.stage == "transfer"]
    assert len(transfers) == 24
    for number, run in transfers:
        source = runs[places[run.config.init.checkpoint]]
        assert places[run.config.init.checkpoint] < number
        assert (source.model, source.seed, source.protocol) == (run.model, run.seed, run.protocol)


def test_the_lax_protocol_watches_the_test_part_and_the_strict_one_does_not(settings_of):
    for run in plan(settings_of(protocols=("strict", "paper"))):
        assert run.config.eval.watch == ("test" if run.protocol == "paper" else "val")
        held_out = run.config.data.split.val_fraction
        assert held_out == (0 if run.protocol == "paper" else 0.1)


def test_without_a_second_set_only_the_first_table_is_planned(settings_of):
    assert {run.stage for run in plan(settings_of(cart=None))} == {"pbc"}
    quick = plan(settings_of(pbc=None, cart=None, quick=True))
    assert {run.stage for run in quick} == {"pbc", "scratch", "transfer"}
    assert {run.config.data.name for run in quick} == {"synthetic_smear"}


def test_a_folder_with_another_run_is_refused(settings_of):
    run = plan(settings_of(models=("rcmnet",)))[0]
    assert not run.is_done()
    run.workdir.mkdir(parents=True)
    write_config(run.config, run.workdir)
    (run.workdir / "test_metrics.json").write_text("{}")
    assert run.is_done()
    other = plan(settings_of(models=("rcmnet",), size=96))[0]
    assert other.workdir == run.workdir
    with pytest.raises(ConfigError, match="another config"):
        other.is_done()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"models": ("resnet50",)}, "resnet18"), ({"seeds": 0}, "at least 1")],
)
def test_mistakes_are_refused(settings_of, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan(settings_of(**changes))


def test_without_configs_it_says_where_to_run(settings_of):
    with pytest.raises(UserError, match="in a checkout"):
        make_plan(settings_of(), Path("nowhere"))


def test_estimates_add_up(settings_of):
    runs = plan(settings_of(models=("rcmnet",)))
    seconds = estimate_seconds(runs, {"pbc": 1000, "cart": 300}, {"rcmnet": 0.01})
    assert [value - OVERHEAD_SECONDS for value in seconds.values()] == pytest.approx(
        [30 * 10, 20 * 3, 1]
    )
    assert [format_duration(s) for s in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def test_the_papers_numbers_are_whole():
    assert [len(rows) for rows in TOP1.values()] == [6, 6, 6]
    assert TOP1["pbc"]["rcmnet"] == 99.63
    assert TOP1["transfer"]["rcmnet"] == 83.36
