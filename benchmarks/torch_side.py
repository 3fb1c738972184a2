"""PyTorch's side of a comparison: eager or compiled, channels last, autocast for bfloat16.

On a GPU: cuDNN's autotuner and TF32 are on, batches are asked for one after the other and waited
for once, as a training loop does.
"""

import os
from contextlib import nullcontext

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.cases import CLASSES, FROZEN_EPOCHS, TASKS, Case
from benchmarks.random_images import MEAN, STD, batch_of, order_of, split_of
from benchmarks.torch_networks import create
from rcmnet_jax.models.registry import MODELS

# As many steps a call as ours dispatches at once.
STEPS_ON_GPU = 16


class Subject:
    """A network with the weights of a file, and the tasks of `benchmarks.cases.TASKS`.

    Args:
      case: what to build.
      weights: an npz of PyTorch's names, written by our side.
      compiled: `torch.compile` it.
    """

    def __init__(self, case: Case, weights: str, compiled: bool):
        self._case = case
        self._gpu = torch.cuda.is_available()
        self._device = torch.device("cuda" if self._gpu else "cpu")
        if self._gpu:
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True
        else:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._network = create(case.model, CLASSES, case.shape[1:3])
        with np.load(weights) as arrays:
            state = {name: torch.from_numpy(arrays[name].copy()) for name in arrays.files}
        self._network.load_state_dict(state)
        self._network = self._network.to(self._device, memory_format=torch.channels_last)
        self._compile = torch.compile if compiled else lambda function: function
        pixels, labels = batch_of(case)
        self._mean, self._std = (self._channels(v) for v in (MEAN, STD))
        self._pixels, self._labels = self._images(pixels), self._on_device(labels).long()
        self._x = self._standardize(self._pixels)
        self._forward = self._compile(self._network)
        self.repeats = STEPS_ON_GPU if self._gpu else 1
        self._tasks: dict = {}

    @property
    def device(self) -> str:
        """What it runs on."""
        if self._gpu:
            return torch.cuda.get_device_name()
        return f"cpu, {torch.get_num_threads()} threads"

    @property
    def versions(self) -> dict[str, str]:
        """Of what computes."""
        return {"torch": torch.__version__}

    def check(self, path: str) -> None:
        """Logits, the loss of a training step and Grad-CAM maps of the batch."""
        self._network.eval()
        with torch.inference_mode(), self._autocast():
            logits = self._forward(self._x).float()
        cam = self._grad_cam(self._network.features, relu=False)
        figures = {"logits": logits, "grad_cam": cam}
        if MODELS[self._case.model].is_resnet:
            before = {k: v.clone() for k, v in self._network.state_dict().items()}
            head = next(iter(self._head()))
            start = head.detach().clone()
            # The same compiled step that is timed.
            figures["loss"] = self._task("train")()[0].detach()
            figures["head_update"] = (head.detach() - start).abs().sum()
            self._network.load_state_dict(before)
        np.savez(path, **{name: value.float().cpu().numpy() for name, value in figures.items()})

    def run(self, task: str) -> None:
        """One call, until the result is there."""
        self._task(task)()
        if self._gpu:
            torch.cuda.synchronize()

    def _task(self, name: str):
        if name not in self._tasks:
            self._tasks[name] = getattr(self, f"_make_{name}")()
        return self._tasks[name]

    def images(self, task: str) -> int:
        """Images that one call of a task is about."""
        repeats = self.repeats if task in ("forward", "train", "frozen_step") else 1
        return self._case.batch * TASKS[task][1] * repeats

    def device_memory(self) -> int | None:
        """Most bytes in use on the accelerator so far; None on CPU."""
        return torch.cuda.max_memory_allocated() if self._gpu else None

    def _make_forward(self):
        def run():
            self._network.eval()
            with torch.inference_mode(), self._autocast():
                for _ in range(self.repeats):
                    self._forward(self._x)

        return run

    def _make_train(self):
        step = self._step_function(self._network.parameters())
        return lambda: [step(self._pixels, self._labels) for _ in range(self.repeats)]

    def _make_epoch(self):
        step = self._step_function(self._network.parameters())
        pixels, labels = split_of(self._case)
        pixels, labels = self._images(pixels), self._on_device(labels).long()
        order = self._on_device(order_of(self._case)).long()

        def run():
            for rows in order:
                batch = self._turned(pixels[rows]).contiguous(memory_format=torch.channels_last)
                step(batch, labels[rows])

        return run

    def _make_grad_cam(self):
        features = self._compile(self._network.features)
        return lambda: self._grad_cam(features)

    def _make_frozen_step(self):
        step = self._frozen_step_function()
        return lambda: [step(self._pixels, self._labels) for _ in range(self.repeats)]

    def _make_frozen_run(self):
        step = self._frozen_step_function()
        pixels, labels = split_of(self._case)
        pixels, labels = self._images(pixels), self._on_device(labels).long()
        order = self._on_device(order_of(self._case)).long()

        def run():
            for _ in range(FROZEN_EPOCHS):
                for rows in order:
                    step(pixels[rows], labels[rows])

        return run

    def _step_function(self, parameters):
        """One training step; the network and the loss are compiled together."""
        optimizer = self._optimizer(parameters)

        def loss_of(pixels, labels):
            with self._autocast():
                logits = self._network(self._standardize(pixels))
            return F.cross_entropy(logits.float(), labels)

        loss_of = self._compile(loss_of)

        def step(pixels, labels):
            self._network.train()
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(pixels, labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def _frozen_step_function(self):
        optimizer = self._optimizer(self._head())

        def loss_of(pixels, labels):
            with self._autocast():
                with torch.no_grad():
                    f = self._network.features(self._standardize(pixels))
                logits = self._network.classify(f)
            return F.cross_entropy(logits.float(), labels)

        loss_of = self._compile(loss_of)

        def step(pixels, labels):
            self._network.eval()
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(pixels, labels)
            loss.backward()
            optimizer.step()

        return step

    def _grad_cam(self, features, relu: bool = True):
        """Without hooks, and nothing below the map is differentiated."""
        self._network.eval()
        with torch.no_grad(), self._autocast():
            f = features(self._x)
        f = f.float().requires_grad_()
        score = self._network.classify(f).gather(1, self._labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, f)
        cam = (f.detach() * gradient.mean((2, 3), keepdim=True)).sum(1)
        return F.relu(cam) if relu else cam

    def _optimizer(self, parameters):
        parameters = list(parameters)
        kernels = [p for p in parameters if p.ndim in (2, 4)]
        others = [p for p in parameters if p.ndim not in (2, 4)]
        groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": others}]
        return torch.optim.SGD(groups, lr=1e-4, momentum=0.9, nesterov=True, fused=True)

    def _head(self):
        network = getattr(self._network, "backbone", self._network)
        layer = network.fc if hasattr(network, "fc") else network.classifier[-1]
        return layer.parameters()

    def _autocast(self):
        if self._case.dtype == "bfloat16":
            return torch.autocast(self._device.type, torch.bfloat16)
        return nullcontext()

    def _standardize(self, pixels):
        return (pixels.float() / 255 - self._mean) / self._std

    def _turned(self, pixels):
        """Flips of both axes, drawn for each image; quarter turns where they keep the shape."""
        draws = torch.rand(3, pixels.shape[0], 1, 1, 1, device=self._device) < 0.5
        if pixels.shape[2] == pixels.shape[3]:
            pixels = torch.where(draws[2], pixels.transpose(2, 3), pixels)
        pixels = torch.where(draws[0], pixels.flip(2), pixels)
        return torch.where(draws[1], pixels.flip(3), pixels)

    def _on_device(self, array):
        return torch.from_numpy(array).to(self._device)

    def _images(self, pixels):
        """(N, 3, H, W), channels last in memory: a view of the array."""
        return self._on_device(pixels).permute(0, 3, 1, 2)

    def _channels(self, values):
        return torch.tensor(values, device=self._device)[None, :, None, None]
