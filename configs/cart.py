"""The paper's second half: a two-class CAR-T set, with or without the weights of PBC (Table 6, 7).

    python train.py --config configs/cart.py:data=cart,transfer --workdir checkpoints/cart_rcmnet \\
        --config.data.source=CART_FOLDER --config.init.checkpoint=checkpoints/pbc_rcmnet

``transfer`` copies all weights but the classifier's from the run in ``init.checkpoint``, freezes
them and trains the classifier (section 3.4, Figure 7); without it the network starts from scratch.
Each training image is shown six times an epoch, turned and flipped (Table 3), after the split;
20 epochs. ``size`` must be that of the source run, or give the same feature map: 384 pixels do
where the source was trained at 363x360.

The paper's CAR-T images are not public. ``data=stand_in`` is for another two-class folder in their
place, ``data=synthetic`` draws cells; results on either are no CAR-T results.
"""

import ml_collections

from configs.base import base_config, parse_arg, shrink
from rcmnet_jax.errors import ConfigError

DATA = {"cart": "cart", "stand_in": "cell_folder", "synthetic": "synthetic_smear"}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: model, seed, data, transfer, size (pixels a side), epochs, runlocal."""
    given = parse_arg(
        arg,
        model="rcmnet",
        seed=0,
        data="cart",
        transfer=False,
        size=384,
        epochs=20,
        runlocal=False,
    )
    if given.data not in DATA:
        raise ConfigError(f"data={given.data!r} is not one of {', '.join(DATA)}")
    config = base_config(given.model)
    config.seed = given.seed
    config.data.name = DATA[given.data]
    config.data.height = config.data.width = given.size
    config.data.views = "paper"
    config.data.synthetic.kind = "cart"
    config.train.epochs = given.epochs
    config.optim.learning_rate = 0.01
    if given.transfer:
        config.init.trainable = ("head/.*",)
        config.init.batch_norm = "frozen"
    if given.runlocal:
        shrink(config)
    return config
