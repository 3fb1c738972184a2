"""The paper's second half: a two-class CAR-T set, with or without the weights of PBC (Table 6, 7).

    python train.py --config configs/cart.py:data=cart,transfer --workdir checkpoints/cart_rcmnet \\
        --config.data.source=CART_FOLDER --config.init.checkpoint=checkpoints/pbc_rcmnet

``transfer`` copies all weights but the classifier's from the run in ``init.checkpoint``, freezes
them and trains the classifier (section 3.4, Figure 7); without it the network starts from scratch.
``tune`` says what trains after a transfer: ``head`` (the last layer, the paper's way), ``mlp`` (all
dense layers of VGG19 and AlexNet) or ``all``. ``batch_norm`` says what a frozen network normalises
with: ``frozen``, the statistics of its source, or ``reestimate``, those of the new train split.

Each training image is shown six times an epoch, turned and flipped (Table 3), after the split;
20 epochs. ``folds=5`` tests every image once instead of 8:2, ``seeds=3`` repeats that. ``size``
must be that of the source run, or give the same feature map: 384 pixels do where the source was
trained at 363x360. ``as_published`` follows the paper where it is lax: the best epoch is chosen on
the test part, and each test image counts six times.

The paper's CAR-T images are not public. ``data=neutrophil_stage`` is the stand-in of as many
images (250 band and 250 segmented neutrophils), ``data=folder`` is for any other two-class folder,
``data=synthetic`` draws cells. Results on these are no CAR-T results.
"""

import ml_collections

from configs.base import as_published, base_config, parse_arg, shrink
from rcmnet_jax.errors import ConfigError
from rcmnet_jax.models.registry import network_facts

DATA = {
    "cart": "cart",
    "neutrophil_stage": "cell_folder",
    "folder": "cell_folder",
    "synthetic": "synthetic_smear",
}
TUNE = {"head": ("head/.*",), "mlp": ("head/.*", "fc1/.*", "fc2/.*"), "all": (".*",)}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: model, seed, data, transfer, tune, batch_norm, size (pixels a side), epochs,
    folds, seeds, as_published, runlocal."""
    given = parse_arg(
        arg,
        model="rcmnet",
        seed=0,
        data="cart",
        transfer=False,
        tune="head",
        batch_norm="frozen",
        size=384,
        epochs=20,
        folds=0,
        seeds=1,
        as_published=False,
        runlocal=False,
    )
    _check(given)
    config = base_config(given.model)
    config.seed = given.seed
    config.train.repeats = given.seeds
    config.data.name = DATA[given.data]
    config.data.height = config.data.width = given.size
    config.data.views = "paper"
    config.data.split.folds = given.folds
    config.data.synthetic.kind = "cart"
    config.train.epochs = given.epochs
    config.optim.learning_rate = 0.01
    # With this few validation images accuracy moves in coarse steps; the loss is finer.
    config.eval.metric = "loss"
    if given.size <= 128:
        # Small images leave room for larger batches, which a CPU needs to be busy.
        config.train.batch_size = 64
    if given.transfer:
        config.init.trainable = TUNE[given.tune]
        config.init.batch_norm = "train" if given.tune == "all" else given.batch_norm
    if given.as_published:
        as_published(config)
        config.eval.views = "paper"
    if given.runlocal:
        shrink(config)
    return config


def _check(given: ml_collections.ConfigDict) -> None:
    for key, choices in (("data", DATA), ("tune", TUNE)):
        if given[key] not in choices:
            raise ConfigError(f"{key}={given[key]!r} is not one of {', '.join(choices)}")
    if given.tune == "mlp" and network_facts(given.model).is_resnet:
        raise ConfigError(f"tune=mlp: {given.model} has one dense layer only, use tune=head")
