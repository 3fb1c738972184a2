"""Every key a training run reads, with its default, unit and meaning.

An experiment file starts from `base_config` and changes what it must; the command line changes
the rest, as in ``--config.optim.learning_rate=0.05``. A key that is not declared here is an error.
"""

import ml_collections

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.models.registry import network_facts


def parse_arg(arg: str, **defaults):
    """Reads the part of ``--config file.py:key=value,flag`` behind the colon.

    Args:
      arg: comma-separated ``key=value`` pairs; a bare ``key`` means true.
      **defaults: the keys an experiment takes, with values whose types are kept.

    Returns:
      A `ConfigDict` of the keys.

    Raises:
      ConfigError: an unknown key, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, arg.split(",")):
        key, _, text = item.partition("=")
        if key not in defaults:
            raise ConfigError(
                f"config argument {key!r} is not known here: choose from {', '.join(defaults)}"
            )
        values[key] = _convert(key, text, type(defaults[key]))
    return ml_collections.ConfigDict(values)


def base_config(model: str = "rcmnet") -> ml_collections.ConfigDict:
    """The defaults of all experiments, for one of the six networks."""
    network = network_facts(model)
    config = ml_collections.ConfigDict()
    # Of initial weights, batch order, augmentation and dropout. The split has its own.
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    config.data.name = "pbc"  # A key of rcmnet_jax.data.builders.DATASETS.
    config.data.source = ""  # Folder, zip or manifest of the images.
    config.data.data_dir = ""  # Built data sets and decoded pixels; "": the user's cache folder.
    config.data.height = 363  # Pixels; images of another size are scaled to cover, then cropped.
    config.data.width = 360
    config.data.bit_depth = 0  # Significant bits of 16-bit files, e.g. 12; 0: all.
    config.data.page = 0  # Which image of files that hold several (pages, channels, focus planes).
    config.data.cache = "device"  # device | host | stream.
    config.data.sampling = "shuffle"  # shuffle | balanced.
    # custom (the keys below decide) | none | paper | mild | strong (for images of other labs).
    config.data.augment = "custom"
    config.data.views = "dihedral"  # none | dihedral | paper (six fixed views of each image).
    config.data.light = 0.0  # Half-width of the random brightness factor.
    config.data.stain = 0.0  # Spread of the random factor on each channel's optical density.
    config.data.zoom = (1.0, 1.0)  # Smallest and largest size of a cell over its own.
    config.data.rotation = 0.0  # Largest turn either way, in degrees.
    config.data.shift = 0.0  # Largest move along each axis, as a share of the side.
    config.data.blur = 0.0  # Largest standard deviation of a blur, as a share of the side.
    config.data.sharpen = 0.0  # Largest weight of unsharp masking, e.g. 1.0.
    config.data.colour = 0.0  # Largest weight that a channel gets from another.
    config.data.gain = 0.0  # Half-width of the random factor on each channel.
    config.data.shade = 0.0  # Largest change of light from the centre to an edge, as a share.
    config.data.gamma = 0.0  # Largest logarithm of a channel's gamma, either way.
    config.data.jpeg = 0.0  # Coarsest rounding in 8x8 blocks; 1 is about JPEG's quality 50.
    config.data.grey = 0.0  # Share of images that lose their colour.
    config.data.split = ml_collections.ConfigDict()
    # 2: train/val/test folders, or the manifest's column split, are the split where there are any;
    # a tenth of images without a patient id become patients of their own. 1: neither, as before.
    config.data.split.version = 2
    config.data.split.protocol = "strict"  # strict | paper (truncated to the smallest class).
    config.data.split.seed = 0
    config.data.split.test_fraction = 0.2
    config.data.split.val_fraction = 0.1  # Of what is left for training.
    config.data.split.group_by = "auto"  # auto | patient | slide | lab | fold | image.
    config.data.split.csv = ""  # A committed split to use instead.
    config.data.split.folds = 0  # k: stratified k-fold instead of one split, all from one command.
    config.data.split.leave_out = ""  # patient | slide | lab | fold: each in turn is the test part.
    config.data.split.fold = -1  # One fold alone, from 0; -1: all of them.
    config.data.synthetic = ml_collections.ConfigDict()
    config.data.synthetic.kind = "pbc"  # pbc (eight classes) | cart (two).
    config.data.synthetic.per_class = 60
    config.data.synthetic.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = model
    config.model.dtype = "float32"  # Compute type; bfloat16 on GPU.
    config.model.param_dtype = "float32"
    if network.is_resnet:
        config.model.norm = "batch"  # batch | group.
        config.model.stem = "imagenet"  # imagenet | small (no pooling, for tiny images).
        config.model.dropout = 0.0
    else:
        config.model.dropout = 0.5

    config.optim = ml_collections.ConfigDict()
    config.optim.learning_rate = network.learning_rate  # Peak, for the given batch size.
    config.optim.schedule = "cosine"  # cosine | constant.
    config.optim.warmup_epochs = 1.0
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4  # On kernels only.
    config.optim.clip_norm = 0.0  # Largest global gradient norm; 0: no clipping.
    config.optim.label_smoothing = 0.0
    config.optim.lr_factors = ()  # Learning rates by group, e.g. "stage.*=0.1".
    config.optim.class_weights = "none"  # none | balanced.
    config.optim.accumulate = 1  # Micro-batches per step.
    config.optim.ema = 0.0  # Decay of the averaged weights, e.g. 0.999; 0: off.

    config.train = ml_collections.ConfigDict()
    config.train.epochs = 30
    config.train.batch_size = 32  # Over all devices.
    config.train.steps_per_dispatch = 0  # Steps per call of the compiled loop; 0: by device.
    config.train.repeats = 1  # Seeds: seed, seed + 1, ..., on the same splits.
    config.train.early_stop = 0  # Epochs without a better eval.metric; 0: never.
    # auto | never: with a frozen backbone, compute its features once and train on them.
    config.train.frozen_features = "auto"
    config.train.require_gpu = False

    config.eval = ml_collections.ConfigDict()
    config.eval.batch_size = 64
    config.eval.metric = "balanced_accuracy"  # A key of training.scoring.METRICS.
    config.eval.test_at_end = True
    # val | test: what the best epoch is chosen on. The test part is only watched to show what that
    # does to a result (the paper did); every file of such a run says so.
    config.eval.watch = "val"
    config.eval.views = "one"  # one | paper: score the test part in six views each, as the paper.

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every_steps = 0  # Besides the end of every epoch; 0: only there.
    config.checkpoint.keep = 2

    config.init = ml_collections.ConfigDict()
    config.init.checkpoint = ""  # Trained run to take the weights from.
    config.init.keep_fresh = ("params/head/.*",)  # Patterns of leaves that are not taken.
    config.init.trainable = (".*",)  # Patterns of parameters that train, e.g. "head/.*".
    config.init.unfreeze = ()  # Gradual unfreezing, e.g. "stage4/.*@5": trains after 5 epochs.
    # train | frozen (statistics of the source) | reestimate (measured on the new train split
    # before the first step, then frozen).
    config.init.batch_norm = "train"

    config.log = ml_collections.ConfigDict()
    config.log.every_steps = 50
    config.log.progress = True
    config.log.tensorboard = True
    config.log.plots = True
    return config


def as_published(config: ml_collections.ConfigDict) -> None:
    """The paper's protocol to the letter: no validation, the test part watched while training."""
    config.data.split.val_fraction = 0.0
    config.eval.watch = "test"


def shrink(config: ml_collections.ConfigDict) -> None:
    """``runlocal``: the same run at a size that shows within a minute whether it works."""
    config.data.height = config.data.width = 64
    config.train.epochs = 2
    config.train.batch_size = 16


def _convert(key: str, text: str, kind: type):
    if kind is bool:
        options = {"": True, "true": True, "1": True, "false": False, "0": False}
        if text.lower() in options:
            return options[text.lower()]
    else:
        try:
            return kind(text)
        except ValueError:
            pass
    raise ConfigError(f"config argument {key}={text!r} is not a {kind.__name__}")
