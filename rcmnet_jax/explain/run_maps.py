"""The maps of one trained network on a set of images, with what is told beside them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.checkpoints.open_model import TrainedNetwork
from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.explainer import Explained, Explainer
from rcmnet_jax.explain.flags import MapFacts, map_facts
from rcmnet_jax.explain.images import CellImage
from rcmnet_jax.inference.predictor import softmax
from rcmnet_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class RunMaps:
    """Maps of N images.

    Attributes:
      name: of the network, as shown.
      restored: the network.
      explainer: how the maps were made.
      pixels_NxHxWx3: uint8, what the network saw.
      explained: the maps.
      probabilities_NxK: float64.
      facts: range and flags of each map.
      trained: an untrained network is there to compare with; its errors are no failures.
    """

    name: str
    restored: TrainedNetwork
    explainer: Explainer
    pixels_NxHxWx3: np.ndarray
    explained: Explained
    probabilities_NxK: np.ndarray
    facts: tuple[MapFacts, ...]
    trained: bool = True

    def failed(self, index: int, true_class: str | None) -> bool:
        """Whether a trained network is wrong here."""
        return self.trained and self.correct(index, true_class) is False

    def predicted(self, index: int) -> str:
        """The class with the largest probability."""
        return self.restored.class_names[int(self.probabilities_NxK[index].argmax())]

    def confidence(self, index: int) -> float:
        """The probability of the predicted class."""
        return float(self.probabilities_NxK[index].max())

    def correct(self, index: int, true_class: str | None) -> bool | None:
        """Whether the prediction is right; None where the class is not known to the network."""
        if true_class not in self.restored.class_names:
            return None
        return self.predicted(index) == true_class

    def record(self, index: int, true_class: str | None) -> dict[str, Any]:
        """What is told of one image, JSON-ready."""
        explained = int(self.explained.class_ids_N[index])
        return {
            "predicted": self.predicted(index),
            "probability": self.confidence(index),
            "correct": self.correct(index, true_class),
            "explained_class": self.restored.class_names[explained],
            "explained_probability": float(self.probabilities_NxK[index, explained]),
            **self.facts[index].to_dict(),
        }


def explain_run(
    name: str,
    restored: TrainedNetwork,
    images: Sequence[CellImage],
    *,
    class_ids: np.ndarray | None = None,
    trained: bool = True,
    **options: Any,
) -> RunMaps:
    """Explains images with a trained network.

    Args:
      name: of the network, as shown.
      restored: from `load_run`.
      images: at least one.
      class_ids: (N,) classes to explain; the predicted ones when None.
      trained: see `RunMaps`.
      **options: of `Explainer`.

    Raises:
      UserError: as `Explainer`.
    """
    explainer = Explainer(restored.model, mean=restored.mean, std=restored.std, **options)
    pixels_NxHxWx3 = np.stack([image.pixels(restored.preprocess) for image in images])
    explained = explainer(restored.variables, pixels_NxHxWx3, class_ids)
    return RunMaps(
        name,
        restored,
        explainer,
        pixels_NxHxWx3,
        explained,
        softmax(explained.logits_NxK),
        tuple(map_facts(cam) for cam in explained.signed_Nxhxw),
        trained,
    )


def class_id(restored: TrainedNetwork, wanted: str) -> int:
    """A class by name or number.

    Raises:
      UserError: the network has no such class.
    """
    names = restored.class_names
    if wanted in names:
        return names.index(wanted)
    if wanted.lstrip("-").isdigit() and 0 <= int(wanted) < len(names):
        return int(wanted)
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    raise UserError(f"class {wanted!r} does not exist: the network has {numbered}")


# Away from the keys of training: with the run's own seed, weights that training hardly moved would
# come back as they were, and a network set back to them would not be another one.
_FRESH = 0x5EED


def fresh_variables(restored: TrainedNetwork, *, seed: int = 0) -> Variables:
    """The network's variables before any training, other ones than the run itself began with."""
    size = (1, restored.preprocess.height, restored.preprocess.width, 3)
    init = jax.jit(lambda key: restored.model.init(key, jnp.zeros(size), train=False))
    variables = init(jax.random.fold_in(jax.random.key(seed), _FRESH))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def untrained(restored: TrainedNetwork, *, seed: int = 0) -> TrainedNetwork:
    """The same network with the same classes and preprocessing, before any training."""
    return dataclasses.replace(restored, variables=fresh_variables(restored, seed=seed), step=0)
