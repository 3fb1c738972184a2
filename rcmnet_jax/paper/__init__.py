"""Every table and figure of the paper, remade from images and told with its differences."""

from rcmnet_jax.paper.reproduction import Options as Options
from rcmnet_jax.paper.reproduction import reproduce as reproduce
