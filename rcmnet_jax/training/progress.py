"""Where a run stands, apart from its arrays; saved as JSON beside them."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Progress:
    """Position in the data, sums of the running epoch, and the best score so far.

    Attributes:
      step: optimizer steps done.
      epoch: epochs finished.
      accounted: steps whose metrics are in the sums; trails ``step`` by what is under way.
      loss_sum: of the batches of the running epoch.
      correct: training images classified right in the running epoch, as they were augmented.
      seen: training images of the running epoch.
      best: metric, value, step and epoch of the best validation.
      epochs_without_better: since then.
    """

    step: int = 0
    epoch: int = 0
    accounted: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best: dict[str, Any] | None = None
    epochs_without_better: int = 0

    def add(self, *, loss: float, correct: int, batch: int) -> None:
        """Counts one step's metrics."""
        self.accounted += 1
        self.loss_sum += loss * batch
        self.correct += correct
        self.seen += batch

    def epoch_means(self) -> dict[str, float]:
        """Training loss and accuracy of the running epoch."""
        return {
            "train_loss": self.loss_sum / self.seen,
            "train_accuracy": self.correct / self.seen,
        }

    def end_epoch(self) -> None:
        """Starts the next epoch's sums."""
        self.epoch += 1
        self.loss_sum, self.correct, self.seen = 0.0, 0, 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """The inverse of `to_dict`."""
        return cls(**values)
