"""Generated cells: what `make demo` trains on, and the quickest way to see a run.

    python train.py --config configs/synthetic.py --workdir checkpoints/synthetic

The images are drawn by the library and are synthetic; no figure measured on them says anything
about real cells.
"""

import ml_collections

from configs.base import base_config, parse_arg, shrink


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: model, seed, kind (pbc or cart), per_class, size, epochs, runlocal."""
    given = parse_arg(
        arg, model="rcmnet", seed=0, kind="pbc", per_class=60, size=64, epochs=8, runlocal=False
    )
    config = base_config(given.model)
    config.seed = given.seed
    config.data.name = "synthetic_smear"
    config.data.height = config.data.width = given.size
    config.data.synthetic.kind = given.kind
    config.data.synthetic.per_class = given.per_class
    config.train.epochs = given.epochs
    config.train.batch_size = 32
    config.log.every_steps = 10
    if given.runlocal:
        shrink(config)
    return config
