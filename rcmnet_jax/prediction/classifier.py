"""A trained network as something that can be asked: what is on this image, and how sure?"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rcmnet_jax.checkpoints.digest import tree_sha256
from rcmnet_jax.checkpoints.open_model import load_model
from rcmnet_jax.data.preprocess import inspect_and_decode
from rcmnet_jax.data.threads import ordered_map
from rcmnet_jax.errors import BadImageError, DataError
from rcmnet_jax.inference import BatchedPass, Outputs, TrainedNetwork, logits_features_colours
from rcmnet_jax.inference.gate import REVIEW
from rcmnet_jax.prediction.image_list import read_file


@dataclasses.dataclass(frozen=True, eq=False)
class Verdicts:
    """What a classifier says about N images.

    Attributes:
      class_names: in the order of the columns of the probabilities.
      probabilities: (N, K) float64, calibrated where the model has a temperature.
      score: (N,) out-of-distribution score, 1 where review begins; None without a gate.
      status: (N,) of `rcmnet_jax.inference.gate.STATUSES`; None without a gate.
    """

    class_names: tuple[str, ...]
    probabilities: np.ndarray
    score: np.ndarray | None
    status: np.ndarray | None

    @property
    def top(self) -> list[str]:
        """The most probable class of each image."""
        return [self.class_names[k] for k in self.probabilities.argmax(axis=1)]


@dataclasses.dataclass(frozen=True, eq=False)
class ReadImage:
    """One image file: its pixels, or why there are none; neither where it was known already.

    `maximum` is the largest value in a file of 16 bits, 0 in others.
    """

    file: str
    sha256: str = ""
    pixels: np.ndarray | None = None
    error: str = ""
    maximum: int = 0


def open_classifier(
    path: str | Path, *, batch_size: int = 64, bit_depth: int | None = None
) -> "Classifier":
    """A classifier from a bundle (``model.rcmnet``) or the folder of a training run.

    Args:
      path: of the bundle or run.
      batch_size: images a call.
      bit_depth: significant bits of 16-bit files, see `Preprocess`; None: as in training.

    Raises:
      CheckpointError: there is neither, or it is damaged.
      ConfigError: there is no such bit depth.
    """
    network = load_model(path)
    if bit_depth is not None:
        preprocess = dataclasses.replace(network.preprocess, bit_depth=bit_depth)
        network = dataclasses.replace(network, preprocess=preprocess)
    return Classifier(network, batch_size=batch_size)


class Classifier:
    """Judges images with one network.

    Args:
      network: the network.
      batch_size: images a call.
    """

    def __init__(self, network: TrainedNetwork, *, batch_size: int = 64):
        self.network = network
        self._pass = BatchedPass.of(network, logits_features_colours, batch_size=batch_size)
        self.batch_size = self._pass.batch_size
        # Why the export fitted no temperature or gate: nothing is accepted without a person then.
        self.not_fitted: list[str] = network.meta.get("export", {}).get("not_fitted", [])
        self.weights_sha256 = tree_sha256(network.variables)

    def predict_pixels(self, pixels_NxHxWx3: np.ndarray) -> Verdicts:
        """Verdicts on decoded images of the model's size, uint8.

        Raises:
          DataError: another shape or type, or no images.
        """
        pixels = np.asarray(pixels_NxHxWx3)
        size = self.network.preprocess
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size.height, size.width, 3):
            raise DataError(
                f"pixels are {pixels.dtype} {pixels.shape}: give uint8 (N, {size.height},"
                f" {size.width}, 3), as decode_image makes them"
            )
        if not len(pixels):
            raise DataError("there are no images to predict: give one at least")
        return self.judge(self._pass(self.network.variables, pixels))

    def predict_files(self, files: Sequence[str | Path]) -> Verdicts:
        """Verdicts on image files, in their order.

        Raises:
          BadImageError: a file that is no image, or cannot be read; it is named.
        """
        if not len(files):
            raise DataError("there are no images to predict: give one at least")
        outputs = []
        names = [str(file) for file in files]
        for images, output in self.stream(read_file, names):
            for image in images:
                if image.pixels is None:
                    raise BadImageError(f"{image.file}: {image.error}")
            if output is not None:
                outputs.append(output)
        return self.judge(Outputs(*map(np.concatenate, zip(*outputs, strict=True))))

    def judge(self, outputs: Outputs) -> Verdicts:
        """Probabilities, score and status of the network's outputs."""
        probabilities = self.network.calibrated(outputs.logits)
        gate = self.network.gate
        score = None if gate is None else gate.score(outputs.features, outputs.colours)
        status = None
        if gate is not None and score is not None:
            status = gate.status(score, probabilities.max(axis=1), outputs.contrasts)
        elif self.not_fitted:
            status = np.full(len(probabilities), REVIEW)
        return Verdicts(self.network.class_names, probabilities, score, status)

    def stream(
        self,
        read: Callable[[str], bytes],
        files: Iterable[str],
        *,
        known: Mapping[str, str] | None = None,
        workers: int | None = None,
    ) -> Iterator[tuple[list[ReadImage], Outputs | None]]:
        """Reads and decodes files in threads while the network works on those before.

        Args:
          read: gives the bytes of a name, or raises `BadImageError`.
          files: the names.
          known: name -> SHA-256 of what needs no prediction; such a file is not decoded, and comes
            without pixels and without error, if it still has that content.
          workers: decoding threads; one for each core when None.

        Yields:
          Images in the order of the files, bad ones included, and the outputs of those that have
          pixels, in that order; None where none has.
        """
        groups: list[list[ReadImage]] = []

        def batches() -> Iterator[np.ndarray]:
            group: list[ReadImage] = []
            for image in ordered_map(
                lambda file: self._read(read, file, known or {}), files, workers=workers
            ):
                group.append(image)
                good = sum(one.pixels is not None for one in group)
                if good == self.batch_size:
                    groups.append(group)
                    yield _pixels_of(group)
                    group = []
            if group:
                groups.append(group)
                if any(one.pixels is not None for one in group):
                    yield _pixels_of(group)

        for outputs in self._pass.stream(self.network.variables, batches()):
            yield groups.pop(0), outputs
        # Files after the last good one.
        for group in groups:
            yield group, None

    def _read(self, read: Callable[[str], bytes], file: str, known: Mapping[str, str]) -> ReadImage:
        digest = ""
        try:
            data = read(file)
            digest = hashlib.sha256(data).hexdigest()
            if known.get(file) == digest:
                return ReadImage(file, digest)
            facts, pixels = inspect_and_decode(data, self.network.preprocess)
            return ReadImage(file, digest, pixels, maximum=facts.maximum)
        except BadImageError as error:
            return ReadImage(file, digest, error=str(error))


def _pixels_of(group: list[ReadImage]) -> np.ndarray:
    return np.stack([one.pixels for one in group if one.pixels is not None])
