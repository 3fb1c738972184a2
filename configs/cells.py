"""Your own images: class folders, a zip of them, or a CSV manifest.

    python train.py --config configs/cells.py:size=128 --workdir checkpoints/my_cells \\
        --config.data.source=FOLDER

The manifest has the columns file and label, and optionally patient, slide and lab; with patients
or slides the split keeps each of them on one side.
"""

import ml_collections

from configs.base import base_config, parse_arg, shrink


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: model, seed, size (pixels a side), epochs, runlocal."""
    given = parse_arg(arg, model="rcmnet", seed=0, size=224, epochs=30, runlocal=False)
    config = base_config(given.model)
    config.seed = given.seed
    config.data.name = "cell_folder"
    config.data.height = config.data.width = given.size
    config.data.light = config.data.stain = 0.05
    config.train.epochs = given.epochs
    if given.runlocal:
        shrink(config)
    return config
