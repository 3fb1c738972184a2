"""Our side of a comparison: the library's own steps, compiled as its training loop does."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import CLASSES, EPOCH_STEPS, FROZEN_EPOCHS, TASKS, Case
from benchmarks.flops import matrix_flops
from benchmarks.random_images import MEAN, STD, batch_of, order_of, split_of
from configs.base import base_config
from rcmnet_jax.data.augment import standardize
from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.explain import grad_cam
from rcmnet_jax.hosts.mesh import make_mesh, put_batch, put_replicated
from rcmnet_jax.inference import BatchedPass
from rcmnet_jax.interop.torch import to_torch_state_dict
from rcmnet_jax.models import MODELS, create_model
from rcmnet_jax.training.feed import STEPS_PER_DISPATCH
from rcmnet_jax.training.optimizer import make_optimizer
from rcmnet_jax.training.state import TrainState
from rcmnet_jax.training.steps import StepConfig, StepInputs, compile_step
from rcmnet_jax.transfer.frozen_features import pooled_features

INPUTS = StepInputs(mean=np.asarray(MEAN, np.float32), std=np.asarray(STD, np.float32))
CONFIG = StepConfig()
HEAD = ("head/bias", "head/kernel")
# Relative change of pixels, as two correct forms of a convolution differ, and how
# many such changes are tried: not each moves a map to the other side of a kink.
NUDGE = 1e-6
NUDGES = 6


class Subject:
    """A network with random weights, and the tasks of `benchmarks.cases.TASKS`.

    Args:
      case: what to build.
      weights: where the PyTorch names and arrays are written for the others.
      compiled: ignored; our side always is.
    """

    def __init__(self, case: Case, weights: str, compiled: bool):
        del compiled
        self._case = case
        self._model = create_model(case.model, CLASSES, dtype=case.dtype)
        self._variables = random_variables(self._model, (1, *case.shape[1:]))
        with open(weights, "wb") as file:
            np.savez(file, **to_torch_state_dict(case.model, self._variables))
        self.mesh = make_mesh()
        self._variables = put_replicated(self._variables, self.mesh)
        self._pixels, self._labels = batch_of(case)
        x = standardize(jnp.asarray(self._pixels, jnp.float32) / 255, MEAN, STD)
        self._x = put_batch(np.asarray(x), self.mesh)
        self._classes = jnp.asarray(self._labels)
        self._apply = jax.jit(functools.partial(self._model.apply, train=False))
        # Several steps a call where a step takes the accelerator less time than a dispatch.
        self.repeats = STEPS_PER_DISPATCH.get(jax.default_backend(), 1)
        self._tasks: dict = {}

    @property
    def device(self) -> str:
        """What it runs on."""
        return f"{jax.devices()[0].device_kind} x {jax.device_count()} ({jax.default_backend()})"

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the libraries that compute."""
        import flax
        import jaxlib

        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "flax": flax.__version__}

    def check(self, path: str) -> None:
        """Writes logits, the loss of a step, Grad-CAM maps and how far roundings move these."""
        logits = self._apply(self._variables, self._x)
        explain = functools.partial(grad_cam, self._model, self._variables, relu=False)
        maps = np.asarray(explain(self._x, self._classes))
        outputs = {"logits": logits, "grad_cam": maps, **self._training()}
        if self._case.dtype == "float32":
            outputs["grad_cam_moves"] = self._moves(explain, maps)
        np.savez(path, **outputs)

    def _moves(self, explain, maps_BxHxW: np.ndarray) -> np.ndarray:
        """The most each map (B,) moves when its pixels change by a rounding."""
        noise = np.random.default_rng(0)
        pixels = np.asarray(self._x)
        moves = np.zeros(len(maps_BxHxW), np.float32)
        for _ in range(NUDGES):
            by = noise.uniform(-NUDGE, NUDGE, pixels.shape).astype(np.float32)
            nudged = explain(put_batch(pixels * (1 + by), self.mesh), self._classes)
            moves = np.maximum(moves, np.abs(nudged - maps_BxHxW).max(axis=(1, 2)))
        return moves

    def _training(self) -> dict:
        """Loss of the first step, and the classifier's update after one call of steps."""
        if not MODELS[self._case.model].is_resnet:
            # Dropout draws different units on each side.
            return {}
        step = self._task("train")
        losses = step()["loss"]
        moved = jnp.abs(step.head - self._variables["params"]["head"]["kernel"])
        return {"loss": losses[0], "head_update": moved.sum()}

    def run(self, task: str) -> None:
        """One call, until the result is there."""
        jax.block_until_ready(self._task(task)())

    def _task(self, name: str):
        if name not in self._tasks:
            self._tasks[name] = getattr(self, f"_make_{name}")()
        return self._tasks[name]

    def compiled_text(self) -> str:
        """Compiled HLO of the training step, once it has run."""
        return self._tasks["train"].compiled_text()

    def images(self, task: str) -> int:
        """Images that one call of a task processes."""
        repeats = self.repeats if task in ("forward", "train", "frozen_step") else 1
        return self._case.batch * TASKS[task][1] * repeats

    def device_memory(self) -> int | None:
        """Most bytes in use on the accelerator so far; None on CPU."""
        statistics = jax.devices()[0].memory_stats() or {}
        return statistics.get("peak_bytes_in_use")

    def flops(self) -> float:
        """Of one image's forward pass: convolutions and matrix products."""
        apply = functools.partial(self._model.apply, train=False)
        image = jax.ShapeDtypeStruct((1, *self._case.shape[1:]), jnp.float32)
        return matrix_flops(apply, self._variables, image)

    def train_state(self, config: StepConfig) -> TrainState:
        """Initial state with the weights that all sides share."""
        # Weight decay 5e-4 and Nesterov momentum 0.9, as torch_side.py.
        tx = make_optimizer(base_config().optim, lambda step: 1e-4)
        # Copies, because the step donates its state.
        variables = jax.tree.map(jnp.copy, self._variables)
        params = variables["params"]
        trains = params if config.trainable is None else {"head": params["head"]}
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            apply_fn=self._model.apply,
            params=params,
            tx=tx,
            opt_state=tx.init(trains),
            batch_stats=variables.get("batch_stats", {}),
        )
        return put_replicated(state, self.mesh)

    def _make_forward(self):
        def run():
            for _ in range(self.repeats):
                logits = self._apply(self._variables, self._x)
            return logits

        return run

    def _make_grad_cam(self):
        return lambda: grad_cam(self._model, self._variables, self._x, self._classes)

    def train_call(self, config: StepConfig):
        """A function that takes `repeats` training steps on the batch."""
        return self._stepper(config, *self._repeated())

    def _make_train(self):
        return self._stepper(CONFIG, *self._repeated())

    def _make_frozen_step(self):
        config = dataclasses.replace(CONFIG, trainable=HEAD, frozen_norm=True)
        return self._stepper(config, *self._repeated())

    def _make_epoch(self):
        config = dataclasses.replace(CONFIG, augmentation=Augmentation("dihedral"))
        chunks = np.split(order_of(self._case), EPOCH_STEPS // min(self.repeats, EPOCH_STEPS))
        step = self._stepper(config, *split_of(self._case), chunks[0])
        chunks = put_batch(chunks, self.mesh, axis=1)
        return lambda: [step(rows) for rows in chunks]

    def _make_frozen_run(self):
        config = dataclasses.replace(CONFIG, trainable=HEAD, frozen_norm=True)
        pixels, labels = split_of(self._case)
        extract = BatchedPass(
            pooled_features, self._model, mean=MEAN, std=STD, batch_size=self._case.batch
        )
        rows = np.tile(order_of(self._case), (FROZEN_EPOCHS, 1))
        step = None

        def run():
            nonlocal step
            features = extract(self._variables, pixels)
            if step is None:
                step = self._stepper(config, features[:, None], labels, rows, name="features")
            return step()

        return run

    def _repeated(self):
        rows = np.tile(np.arange(self._case.batch, dtype=np.int32), (self.repeats, 1))
        return self._pixels, self._labels, rows

    def _stepper(self, config, pixels, labels, rows, name="image"):
        return _Stepper(
            self.train_state(config), config, self.mesh, {name: pixels, "label": labels}, rows
        )


class _Stepper:
    """The loop's compiled step on a split that lies on the device."""

    def __init__(self, state, config, mesh, split, rows):
        self._state = state
        self._step = compile_step(config, mesh, on_device=True)
        count = np.asarray(len(rows), np.int32)
        given = (split, count, jax.random.key(0), INPUTS)
        self._split, self._count, self._key, self._inputs = put_replicated(given, mesh)
        self.rows, self._views = put_batch((rows, np.zeros_like(rows)), mesh, axis=1)

    @property
    def head(self) -> jax.Array:
        """The current kernel of the classifier."""
        return self._state.params["head"]["kernel"]

    def compiled_text(self) -> str:
        """Compiled HLO of the step."""
        return self._step.lower(*self._arguments(self.rows)).compile().as_text()

    def _arguments(self, rows):
        batches = (self._split, rows, self._views, self._count)
        return (self._state, *batches, self._key, self._inputs)

    def __call__(self, rows=None):
        rows = self.rows if rows is None else rows
        self._state, metrics = self._step(*self._arguments(rows))
        return metrics


def random_variables(model, image_shape):
    """Weights of a sensible size by numpy: compiling an initialisation takes half a minute."""
    rng = np.random.default_rng(0)
    x = jax.ShapeDtypeStruct(image_shape, np.float32)
    shapes = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)

    def fill(path, leaf):
        name = path[-1].key
        r = rng.standard_normal(leaf.shape).astype(np.float32)
        if name == "kernel":
            return r * np.float32(math.sqrt(2 / math.prod(leaf.shape[:-1])))
        if name in ("rel_height", "rel_width"):
            return r * np.float32(leaf.shape[-1] ** -0.5)
        if name == "var":
            return np.exp(np.float32(0.1) * r)
        return (1 if name == "scale" else 0) + np.float32(0.1) * r

    kept = {key: tree for key, tree in shapes.items() if key in ("params", "batch_stats")}
    return jax.tree_util.tree_map_with_path(fill, kept)
