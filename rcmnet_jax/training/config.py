"""Values of a config that would only fail deep inside a run, or not at all."""

import jax
import ml_collections

from rcmnet_jax.data.batches import CACHES
from rcmnet_jax.errors import ConfigError

BATCH_NORM_MODES = ("train", "frozen", "reestimate")


def check_values(config: ml_collections.ConfigDict) -> None:
    """Raises `ConfigError` for the first value that is out of its range."""
    rules = [
        (config.data.cache in CACHES, f"data.cache is not one of {', '.join(CACHES)}"),
        (config.train.epochs >= 1, "train.epochs must be at least 1"),
        (config.train.early_stop >= 0, "train.early_stop must not be negative"),
        (config.train.steps_per_dispatch >= 0, "train.steps_per_dispatch must not be negative"),
        (config.eval.batch_size >= 1, "eval.batch_size must be at least 1"),
        (0 <= config.optim.label_smoothing < 1, "optim.label_smoothing must be in [0, 1)"),
        (0 <= config.optim.ema < 1, "optim.ema must be in [0, 1)"),
        (0 <= config.seed < 2**31, "seed must be in [0, 2^31)"),
        (0 <= config.model.dropout < 1, "model.dropout must be in [0, 1)"),
        (
            config.init.batch_norm in BATCH_NORM_MODES,
            f"init.batch_norm must be one of {', '.join(BATCH_NORM_MODES)}",
        ),
        (config.eval.watch in ("val", "test"), "eval.watch must be val or test"),
        (config.eval.views in ("one", "paper"), "eval.views must be one or paper"),
        (
            config.train.frozen_features in ("auto", "never"),
            "train.frozen_features must be auto or never",
        ),
        (config.checkpoint.keep >= 1, "checkpoint.keep must be at least 1"),
        (config.checkpoint.every_steps >= 0, "checkpoint.every_steps must not be negative"),
        (config.log.every_steps >= 1, "log.every_steps must be at least 1"),
        (
            config.optim.accumulate >= 1 and config.train.batch_size % config.optim.accumulate == 0,
            "optim.accumulate must divide train.batch_size",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{message}: see configs/base.py for what each key takes")
    if config.train.require_gpu and jax.default_backend() != "gpu":
        raise ConfigError(
            f"train.require_gpu is set, but jax runs on {jax.default_backend()}:"
            " install rcmnet-jax[cuda12] or [cuda13] and check the driver with nvidia-smi"
        )
