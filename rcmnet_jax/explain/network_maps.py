"""The maps of one network on a set of images, with its predictions and warnings about the maps."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.calibration import apply_temperature
from rcmnet_jax.explain.explainer import Explained, Explainer
from rcmnet_jax.explain.images import CellImage
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.types import Variables

# A map that varies by less than this share of its largest magnitude is flat: in an overlay scaled
# to its own maximum, noise would look like a finding.
FLAT_RANGE = 0.01
# Keeps untrained weights apart from those that the run began with: a network reset to its own
# start would still resemble itself where training changed little.
_UNTRAINED_KEY = 0x5EED


@dataclasses.dataclass(frozen=True)
class MapFacts:
    """The raw range of a signed map, and warnings.

    Attributes:
      minimum: smallest value, before ReLU; None for a map that is not finite.
      maximum: largest value.
      flags: any of ``empty`` (no positive value: ReLU leaves nothing), ``flat`` (see `FLAT_RANGE`)
        and ``not_finite``.
    """

    minimum: float | None
    maximum: float | None
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"minimum": self.minimum, "maximum": self.maximum, "flags": list(self.flags)}


def map_facts(signed_hxw: np.ndarray) -> MapFacts:
    """The range and flags of one signed map, from ``relu=False``."""
    values = np.asarray(signed_hxw, np.float64)
    if not np.isfinite(values).all():
        return MapFacts(None, None, ("not_finite",))
    low, high = float(values.min()), float(values.max())
    flags = []
    if high <= 0:
        flags.append("empty")
    if high - low <= FLAT_RANGE * max(abs(low), abs(high)):
        flags.append("flat")
    return MapFacts(low, high, tuple(flags))


@dataclasses.dataclass(frozen=True)
class NetworkMaps:
    """Maps of N images.

    Attributes:
      name: of the network, as shown.
      network: the network.
      explainer: makes the maps, for any variables.
      layer: whose maps they are; None for the last.
      pixels_NxHxWx3: uint8, the network's input.
      explained: the maps.
      probabilities_NxK: float64, divided by the temperature where the network has one.
      facts: range and flags of each map.
      trained: False for an untrained network shown for comparison; its errors are no failures.
    """

    name: str
    network: TrainedNetwork
    explainer: Explainer
    layer: str | None
    pixels_NxHxWx3: np.ndarray
    explained: Explained
    probabilities_NxK: np.ndarray
    facts: tuple[MapFacts, ...]
    trained: bool = True

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of the network's input in pixels."""
        return self.network.preprocess.height, self.network.preprocess.width

    @property
    def description(self) -> str:
        """The layer with its map's size, and whether the probabilities are calibrated."""
        height, width = self.explained.signed_Nxhxw.shape[1:]
        temperature = self.network.temperature
        kind = f"calibrated (temperature {temperature:.3g})" if temperature else "not calibrated"
        layer = self.layer or "last"
        return f"layer {layer}, {height}x{width} maps; probabilities {kind}"

    def predicted(self, index: int) -> str:
        """The class with the largest probability."""
        return self.network.class_names[int(self.probabilities_NxK[index].argmax())]

    def confidence(self, index: int) -> float:
        """The probability of the predicted class."""
        return float(self.probabilities_NxK[index].max())

    def correct(self, index: int, true_class: str | None) -> bool | None:
        """Whether the prediction is right; None where the network does not know the class."""
        if true_class not in self.network.class_names:
            return None
        return self.predicted(index) == true_class

    def failed(self, index: int, true_class: str | None) -> bool:
        """Whether a trained network is wrong."""
        return self.trained and self.correct(index, true_class) is False

    def record(self, index: int, true_class: str | None) -> dict[str, Any]:
        """Prediction, explained class and map range of one image, JSON-ready."""
        explained = int(self.explained.class_ids_N[index])
        return {
            "predicted": self.predicted(index),
            "probability": self.confidence(index),
            "correct": self.correct(index, true_class),
            "explained_class": self.network.class_names[explained],
            "explained_probability": float(self.probabilities_NxK[index, explained]),
            **self.facts[index].to_dict(),
        }


def explain_network(
    name: str,
    network: TrainedNetwork,
    images: Sequence[CellImage],
    *,
    layer: str | None,
    class_id: int | None = None,
    trained: bool = True,
    **options: Any,
) -> NetworkMaps:
    """Explains images with one network.

    Args:
      name: of the network, as shown.
      network: from `load_model`.
      images: at least one.
      layer: of the maps; None for the last.
      class_id: the class to explain; the predicted one of each image when None.
      trained: see `NetworkMaps`.
      **options: of `Explainer`.

    Raises:
      UserError: as `Explainer`.
    """
    explainer = Explainer(network.model, mean=network.mean, std=network.std, layer=layer, **options)
    pixels_NxHxWx3 = np.stack([image.pixels(network.preprocess) for image in images])
    class_ids = None if class_id is None else np.full(len(images), class_id)
    explained = explainer(network.variables, pixels_NxHxWx3, class_ids)
    return NetworkMaps(
        name,
        network,
        explainer,
        layer,
        pixels_NxHxWx3,
        explained,
        apply_temperature(explained.logits_NxK, network.temperature or 1.0),
        tuple(map_facts(cam) for cam in explained.signed_Nxhxw),
        trained,
    )


def class_id_of(network: TrainedNetwork, wanted: str) -> int:
    """The id of a class given by name or number.

    Raises:
      UserError: the network has no such class.
    """
    names = network.class_names
    if wanted in names:
        return names.index(wanted)
    if wanted.lstrip("-").isdigit() and 0 <= int(wanted) < len(names):
        return int(wanted)
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    raise UserError(f"class {wanted!r} does not exist: the network has {numbered}")


def untrained_variables(network: TrainedNetwork, *, seed: int = 0) -> Variables:
    """Freshly initialised variables of a network, other ones than its training began with."""
    size = (1, network.preprocess.height, network.preprocess.width, 3)
    init = jax.jit(lambda key: network.model.init(key, jnp.zeros(size), train=False))
    variables = init(jax.random.fold_in(jax.random.key(seed), _UNTRAINED_KEY))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
