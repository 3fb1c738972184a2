"""The runs behind the paper's tables, in an order in which they can be trained."""

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import ml_collections

from rcmnet_jax.errors import ConfigError, UserError
from rcmnet_jax.evaluation.results import write_json
from rcmnet_jax.paper.published import NETWORKS, STAGES
from rcmnet_jax.workdir.config_file import require_same_config

PROTOCOLS = ("strict", "paper")
PLAN_FILE = "plan.json"
# Data and training of --quick: few small drawn cells. AlexNet needs at least 63 pixels a side.
QUICK = {"size": 64, "epochs": 4, "batch": 16, "pbc_per_class": 24, "cart_per_class": 30}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One training.

    Attributes:
      protocol: one of `PROTOCOLS`.
      stage: name of one of `rcmnet_jax.paper.published.STAGES`.
      model: a key of `NETWORKS`.
      seed: of the weights and the order.
      config: of the experiment in ``configs/``.
      workdir: folder of the run.
    """

    protocol: str
    stage: str
    model: str
    seed: int
    config: ml_collections.ConfigDict
    workdir: Path

    @property
    def title(self) -> str:
        """One line: network, stage, protocol and seed."""
        return f"{NETWORKS[self.model]}, {self.stage}, {self.protocol} protocol, seed {self.seed}"

    @property
    def source(self) -> Path | None:
        """Folder of the run whose weights this one starts from, if any."""
        return Path(self.config.init.checkpoint) if self.config.init.checkpoint else None

    def is_done(self) -> bool:
        """Whether the run is trained and scored.

        Raises:
          ConfigError: the folder holds a run with another config.
        """
        if not (self.workdir / "test_metrics.json").exists():
            return False
        require_same_config(self.config, self.workdir)
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproductionSettings:
    """What to reproduce, and how much of it; see ``rcmnet reproduce --help``.

    Attributes:
      out: folder of runs and report.
      pbc: folder, zip or manifest of the eight-class set; None with `quick`.
      cart: of the two-class set; None leaves Tables 6 and 7 out.
      models: keys of `NETWORKS`.
      seeds: runs of each network.
      protocols: some of `PROTOCOLS`.
      size: pixels a side; 0 for native.
      quick: train on drawn cells.
      data_dir: where built data sets are kept.
      dry_run: show the plan and train nothing.
      estimate: measure the speed of each network first, for the plan's times.
      hours: start no run that would end later than this; None for no limit.
    """

    out: Path
    pbc: str | None = None
    cart: str | None = None
    models: Sequence[str] = tuple(NETWORKS)
    seeds: int = 1
    protocols: Sequence[str] = ("strict",)
    size: int = 0
    quick: bool = False
    data_dir: str | None = None
    dry_run: bool = False
    estimate: bool = True
    hours: float | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that there are images for."""
        names = tuple(stage.name for stage in STAGES)
        return names if self.cart or self.quick else names[:1]


def make_plan(settings: ReproductionSettings, configs: Path) -> list[PlannedRun]:
    """All runs, each after the run whose weights it starts from.

    Args:
      settings: what to reproduce.
      configs: the folder of the experiments ``pbc.py`` and ``cart.py``.

    Raises:
      ConfigError: a model that is not in the paper, or no seeds.
      UserError: the experiments are not in the folder.
    """
    unknown = sorted(set(settings.models) - NETWORKS.keys())
    if unknown:
        raise ConfigError(f"unknown model {unknown[0]!r}: choose from {', '.join(NETWORKS)}")
    if settings.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {settings.seeds}")
    modules = {name: _load(configs / f"{name}.py") for name in ("pbc", "cart")}
    return [
        PlannedRun(
            protocol=protocol,
            stage=stage,
            model=model,
            seed=seed,
            config=_config(settings, modules, protocol, stage, model, seed),
            workdir=_workdir(settings.out, protocol, stage, model, seed),
        )
        for protocol in settings.protocols
        for stage in settings.stages
        for model in settings.models
        for seed in range(settings.seeds)
    ]


def write_plan(settings: ReproductionSettings, runs: Sequence[PlannedRun]) -> None:
    """Writes the runs to ``plan.json``, for `rcmnet_jax.paper.status`."""
    records = [
        {
            "title": run.title,
            "workdir": str(run.workdir.relative_to(settings.out)),
            "epochs": run.config.train.epochs,
        }
        for run in runs
    ]
    write_json(settings.out / PLAN_FILE, {"runs": records})


def find_configs() -> Path:
    """The folder ``configs`` in the current directory, or else beside the library.

    Raises:
      UserError: neither exists.
    """
    here, library = Path.cwd() / "configs", Path(__file__).parents[2] / "configs"
    for folder in (here, library):
        if (folder / "pbc.py").is_file() and (folder / "cart.py").is_file():
            return folder
    raise UserError(
        "the experiments configs/pbc.py and configs/cart.py are not here:"
        " run rcmnet reproduce in a checkout of rcmnet-jax"
    )


def _workdir(out: Path, protocol: str, stage: str, model: str, seed: int) -> Path:
    return out / "runs" / protocol / stage / model / f"seed{seed}"


def _config(
    settings: ReproductionSettings, modules: dict[str, ModuleType], protocol, stage, model, seed
) -> ml_collections.ConfigDict:
    experiment = "pbc" if stage == "pbc" else "cart"
    words = [f"model={model}", f"seed={seed}"]
    if settings.size:
        words.append(f"size={settings.size}")
    if protocol == "paper":
        words.append("as_published")
    words.append("protocol=paper" if experiment == "pbc" else "data=folder")
    if stage == "transfer":
        words.append("transfer")
    config = modules[experiment].get_config(",".join(words))
    with config.unlocked():
        config.data.data_dir = settings.data_dir or ""
        if stage == "transfer":
            source = _workdir(settings.out, protocol, "pbc", model, seed)
            config.init.checkpoint = str(source)
        if settings.quick:
            _make_quick(config, experiment)
        else:
            config.data.source = (settings.pbc if experiment == "pbc" else settings.cart) or ""
    return config.lock()


def _make_quick(config: ml_collections.ConfigDict, experiment: str) -> None:
    config.data.name = "synthetic_smear"
    config.data.synthetic.kind = experiment
    config.data.synthetic.per_class = QUICK[f"{experiment}_per_class"]
    config.data.height = config.data.width = QUICK["size"]
    config.train.epochs = QUICK["epochs"]
    config.train.batch_size = config.eval.batch_size = QUICK["batch"]


def _load(path: Path) -> ModuleType:
    """A config file as a module; what it imports of ``configs`` comes from beside it."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run rcmnet reproduce in a checkout of rcmnet-jax")
    root = str(path.parents[1])
    spec = importlib.util.spec_from_file_location(f"_paper_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(root)
    return module
