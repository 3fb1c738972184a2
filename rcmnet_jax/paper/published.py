"""The paper's published numbers (Zhang et al. 2022, arXiv 2205.04230).

Where the paper contradicts itself, these are the readings of docs/decisions/0001 and 0003.
"""

import dataclasses

from rcmnet_jax.models import MODELS

# Name in our registry -> name in the paper, in the order of its tables.
NETWORKS = {name: network.title for name, network in MODELS.items()}

# Top-1 in percent: Table 5 (PBC), Table 6 (CAR-T from scratch), Table 7 (CAR-T after transfer).
TOP1 = {
    "pbc": dict(zip(NETWORKS, (99.51, 99.48, 99.58, 99.63, 99.25, 99.18), strict=True)),
    "scratch": dict(zip(NETWORKS, (81.24, 78.22, 82.63, 80.01, 79.11, 78.46), strict=True)),
    "transfer": dict(zip(NETWORKS, (82.18, 82.13, 83.01, 83.36, 79.69, 79.03), strict=True)),
}
# Table 5's other column: the same for all six.
TOP5_PBC = 100.0

# Table 1: every class cut to the smallest.
PBC_PER_CLASS = {"train": 971, "test": 243}
# Tables 2 and 3: images before and after the six views, of both classes.
CART_IMAGES = {"train": 400, "test": 100}
CART_VIEWS = {"train": 2400, "test": 600}

EPOCHS = {"pbc": 30, "cart": 20}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of the three rounds of training.

    Attributes:
      name: key of `TOP1`.
      table: its table in the paper.
      title: what is trained on what.
    """

    name: str
    table: int
    title: str


STAGES = (
    Stage("pbc", 5, "Eight classes of peripheral blood cells"),
    Stage("scratch", 6, "Two classes, trained from scratch"),
    Stage(
        "transfer",
        7,
        "Two classes, with the weights of the first round, all but the classifier frozen",
    ),
)
