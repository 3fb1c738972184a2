"""The paper's main training: eight classes of peripheral blood cells (Table 1, Table 5).

    python train.py --config configs/pbc.py:model=rcmnet --workdir checkpoints/pbc_rcmnet \\
        --config.data.source=PBC_dataset_normal_DIB

``protocol=paper`` truncates every class to the smallest (971 train, 243 test each) and holds a
tenth of train out for validation; ``protocol=strict`` (default) uses every image once.
``as_published`` follows the paper where it is lax: no validation, the best epoch is chosen on the
test part, and every file of the run says so. ``size=96`` trains on smaller images, for machines
without a GPU. Measured results are in docs/results.md, each with its command.
"""

import ml_collections

from configs.base import as_published, base_config, parse_arg, shrink

NATIVE = (363, 360)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: model, seed, protocol, as_published, size (pixels a side; 0: native), epochs,
    runlocal."""
    given = parse_arg(
        arg,
        model="rcmnet",
        seed=0,
        protocol="strict",
        as_published=False,
        size=0,
        epochs=30,
        runlocal=False,
    )
    config = base_config(given.model)
    config.seed = given.seed
    config.data.split.protocol = given.protocol
    config.data.height, config.data.width = (given.size, given.size) if given.size else NATIVE
    config.train.epochs = given.epochs
    if given.size and given.size <= 128:
        # Small images leave room for larger batches, which a CPU needs to be busy.
        config.train.batch_size = 64
    if given.as_published:
        as_published(config)
    if given.runlocal:
        shrink(config)
    return config
