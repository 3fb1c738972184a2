"""Which runs the paper's tables take, in the order in which they can be made."""

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import ml_collections

from rcmnet_jax.errors import ConfigError, UserError
from rcmnet_jax.paper.facts import NETWORKS, STAGES
from rcmnet_jax.workdir.config_file import require_same_config

PROTOCOLS = ("strict", "paper")
# What --quick trains on: drawn cells, few and small. AlexNet takes no image below 63 pixels.
QUICK = {"size": 64, "epochs": 4, "batch": 16, "pbc_per_class": 24, "cart_per_class": 30}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One training.

    Attributes:
      protocol: one of `PROTOCOLS`.
      stage: name of one of `rcmnet_jax.paper.facts.STAGES`.
      model: a key of `NETWORKS`.
      seed: of the weights and the order.
      config: as ``configs/`` gives it.
      workdir: where it goes.
    """

    protocol: str
    stage: str
    model: str
    seed: int
    config: ml_collections.ConfigDict
    workdir: Path

    @property
    def title(self) -> str:
        """For a line of the plan."""
        return f"{NETWORKS[self.model]}, {self.stage}, {self.protocol} protocol, seed {self.seed}"

    def is_done(self) -> bool:
        """Whether it is scored; a folder with another run in it is an error."""
        if not (self.workdir / "test_metrics.json").exists():
            return False
        require_same_config(self.config, self.workdir)
        return True


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be reproduced.

    Attributes:
      out: folder of everything.
      pbc: folder, zip or manifest of the eight-class set; None with `quick`.
      cart: of the two-class set; None leaves Tables 6 and 7 out.
      models: keys of `NETWORKS`.
      seeds: how many.
      protocols: some of `PROTOCOLS`.
      size: pixels a side; 0 for native.
      quick: drawn cells instead of images.
      data_dir: where built data sets are kept.
    """

    out: Path
    pbc: str | None
    cart: str | None
    models: Sequence[str]
    seeds: int
    protocols: Sequence[str]
    size: int
    quick: bool
    data_dir: str | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the rounds that there are images for."""
        names = tuple(stage.name for stage in STAGES)
        return names if self.cart or self.quick else names[:1]


def make_plan(request: Request, configs: Path) -> list[PlannedRun]:
    """All runs, every source before the transfers that take its weights.

    Args:
      request: what is asked for.
      configs: the checkout's folder of experiments.

    Raises:
      ConfigError: a model that the paper does not have, or no seeds.
      UserError: no configs there.
    """
    unknown = sorted(set(request.models) - NETWORKS.keys())
    if unknown:
        raise ConfigError(f"unknown model {unknown[0]!r}: choose from {', '.join(NETWORKS)}")
    if request.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {request.seeds}")
    modules = {name: _load(configs / f"{name}.py") for name in ("pbc", "cart")}
    return [
        PlannedRun(
            protocol=protocol,
            stage=stage,
            model=model,
            seed=seed,
            config=_config(request, modules, protocol, stage, model, seed),
            workdir=_workdir(request.out, protocol, stage, model, seed),
        )
        for protocol in request.protocols
        for stage in request.stages
        for model in request.models
        for seed in range(request.seeds)
    ]


def find_configs() -> Path:
    """The folder ``configs`` of the checkout that this is run in, or that the library lies in.

    Raises:
      UserError: there is none.
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
    request: Request, modules: dict[str, ModuleType], protocol, stage, model, seed
) -> ml_collections.ConfigDict:
    experiment = "pbc" if stage == "pbc" else "cart"
    words = [f"model={model}", f"seed={seed}"]
    if request.size:
        words.append(f"size={request.size}")
    if protocol == "paper":
        words.append("as_published")
    words.append("protocol=paper" if experiment == "pbc" else "data=folder")
    if stage == "transfer":
        words.append("transfer")
    config = modules[experiment].get_config(",".join(words))
    with config.unlocked():
        config.data.data_dir = request.data_dir or ""
        if stage == "transfer":
            source = _workdir(request.out, protocol, "pbc", model, seed)
            config.init.checkpoint = str(source)
        if request.quick:
            _make_quick(config, experiment)
        else:
            config.data.source = (request.pbc if experiment == "pbc" else request.cart) or ""
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
