"""What is measured: networks, sizes, batch sizes, tasks and sides. Imports no framework."""

import dataclasses

from rcmnet_jax.models.registry import MODELS

# Side -> (height, width): PBC's own size, and squares.
SIZES = {363: (363, 360), 128: (128, 128), 64: (64, 64), 28: (28, 28)}
# Images in a batch: the largest that a laptop trains without swapping.
CPU_BATCH = {363: 16, 128: 64, 64: 64, 28: 64}
GPU_BATCH = {363: 128, 128: 512, 64: 1024, 28: 2048}
CLASSES = 8
OURS = "ours"
# Batches in an epoch of the task of that name, and epochs of the frozen fine-tuning.
EPOCH_STEPS = 4
FROZEN_EPOCHS = 10

# Task -> what one call of it does; "images" a call in units of the batch.
TASKS = {
    "forward": ("logits of a batch", 1),
    "train": ("one optimizer step on a batch of uint8 pixels", 1),
    "epoch": (f"{EPOCH_STEPS} shuffled steps with flips and quarter turns", EPOCH_STEPS),
    "grad_cam": ("Grad-CAM maps of a batch", 1),
    "frozen_step": ("one step of the classifier behind the frozen backbone", 1),
    "frozen_run": (
        f"{FROZEN_EPOCHS} epochs of the classifier over {EPOCH_STEPS} batches: ours computes the"
        " features once, as train.py does; PyTorch runs the backbone each time",
        FROZEN_EPOCHS * EPOCH_STEPS,
    ),
}
DEFAULT_TASKS = ("forward", "train")


@dataclasses.dataclass(frozen=True)
class Case:
    """One network at one size, in one batch size and compute type.

    Attributes:
      model: a name of `MODELS`.
      size: a key of `SIZES`.
      batch: images.
      dtype: ``float32`` or ``bfloat16``.
    """

    model: str
    size: int
    batch: int
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a batch of images, channels last."""
        return (self.batch, *SIZES[self.size], 3)

    @property
    def name(self) -> str:
        """One line for output."""
        height, width = SIZES[self.size]
        return f"{self.model} {height}x{width}, batch {self.batch}, {self.dtype}"


def cases_of(models, sizes, *, dtype: str, batches=(), gpu: bool = False) -> list[Case]:
    """Every network at every size it can take; ``batches`` are tried each where given."""
    usual = GPU_BATCH if gpu else CPU_BATCH
    return [
        Case(model, size, batch, dtype)
        for model in models
        for size in sizes
        if _fits(model, size)
        for batch in (batches or (usual[size],))
    ]


def left_out(models, sizes) -> list[str]:
    """One line for each network at each size that is too small for it."""
    return [
        f"{model} at {size} pixels: it takes {MODELS[model].smallest} at least"
        for model in models
        for size in sizes
        if not _fits(model, size)
    ]


def _fits(model: str, size: int) -> bool:
    return size >= MODELS[model].smallest


def sides(*, torch: bool, eager: bool = True, compiled: bool = True) -> tuple[str, ...]:
    """The sides that take turns."""
    theirs = {"torch_eager": eager, "torch_compiled": compiled}
    return (OURS, *(name for name, wanted in theirs.items() if torch and wanted))
