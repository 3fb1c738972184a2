"""Trains a network: ``python train.py --config configs/pbc.py:model=rcmnet --workdir DIR``.

Keys of the config are set as ``--config.optim.learning_rate=0.05``; configs/base.py lists them.
The same command goes on with a run that was stopped or killed.
"""

import sys

from rcmnet_jax.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
