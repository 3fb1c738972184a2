"""The paper's tables and figures, reproduced from images, beside the published numbers."""

from rcmnet_jax.paper.plan import ReproductionSettings as ReproductionSettings
from rcmnet_jax.paper.reproduction import Outcome as Outcome
from rcmnet_jax.paper.reproduction import reproduce as reproduce
