"""The experiment of the tests: configs/cells.py with a network narrow enough to compile quickly."""

from configs import cells


def get_config(arg: str = ""):
    """Arguments as in configs/cells.py."""
    config = cells.get_config(arg)
    config.model.width = 8
    config.model.stage_sizes = (1, 1, 1, 1)
    config.data.light = config.data.stain = 0.0
    config.train.batch_size = 8
    config.eval.batch_size = 6
    # So that runs of different lengths share one compiled step.
    config.optim.schedule = "constant"
    config.optim.warmup_epochs = 0.0
    config.log.progress = config.log.plots = config.log.tensorboard = False
    config.log.every_steps = 1
    return config
