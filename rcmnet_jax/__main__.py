"""``python -m rcmnet_jax``: the same as the command ``rcmnet``."""

import sys

from rcmnet_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
