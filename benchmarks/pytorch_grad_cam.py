"""Grad-CAM of ResNet18: ours against pytorch-grad-cam, in turns, and what a map costs in passes.

    python benchmarks/pytorch_grad_cam.py --torch-python VENV/bin/python   # 64x64, batch 64
    python benchmarks/pytorch_grad_cam.py --torch-python VENV/bin/python --native  # 363x360, 16
    python benchmarks/pytorch_grad_cam.py                                  # ours alone

VENV needs torch, torchvision and grad-cam; where torchvision's wheel is for another build of torch,
its compiled operators, which nothing here calls, are declared without being there. Both sides make
maps of the size of the image from images in memory, with all cores, on a GPU where there is one.
One process works at a time: a round of one, then a round of the other; what counts is the median
round.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

NUM_CLASSES = 8
MODELS = ["resnet18", "rcmnet"]
CASES = {"small": (64, 64, 64), "native": (16, 363, 360)}


def images_of(shape: tuple[int, int, int]) -> np.ndarray:
    """(B, H, W, 3) float32, standardised noise: the values do not change the work."""
    batch, height, width = shape
    return np.random.default_rng(0).standard_normal((batch, height, width, 3)).astype(np.float32)


def our_work(shape: tuple[int, int, int], models: list[str]) -> dict[str, Callable[[], object]]:
    """What is timed on our side, by name."""
    from rcmnet_jax.runtime import configure_runtime

    configure_runtime()
    import jax

    from rcmnet_jax.explain import class_maps, layer_grid
    from rcmnet_jax.explain.overlay import upsample
    from rcmnet_jax.models import create_model

    x = jax.device_put(images_of(shape))
    ids = np.arange(len(x)) % NUM_CLASSES
    work: dict[str, Callable[[], object]] = {}
    for name in models:
        model = create_model(name, NUM_CLASSES)
        variables = model.init(jax.random.key(0), x[:1], train=False)
        forward = jax.jit(lambda v, x, m=model: m.apply(v, x, train=False))
        grid = layer_grid(model, None)

        def maps(layer=None, model=model, variables=variables):
            return class_maps(model, variables, x, ids, layer=layer).cam_Bxhxw

        def placed(maps=maps, grid=grid):
            return upsample(np.asarray(maps()), x.shape[1:3], grid)

        work[f"{name} forward"] = lambda f=forward, v=variables: f(v, x).block_until_ready()
        work[f"{name} raw map"] = lambda m=maps: m().block_until_ready()
        work[f"{name} map at image size"] = placed
        work[f"{name} raw map, stage3"] = lambda m=maps: m("stage3").block_until_ready()
    return work


def torch_work(shape: tuple[int, int, int]) -> dict[str, Callable[[], object]]:
    """What is timed on PyTorch's side: the faster memory layout, and maps from pytorch-grad-cam."""
    import torch

    _declare_torchvision_operators(torch)
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchvision.models import resnet18

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def network():
        model = resnet18(num_classes=NUM_CLASSES).eval()
        return model.to(device, memory_format=torch.channels_last)

    model, plain = network(), network()
    x = torch.from_numpy(images_of(shape)).permute(0, 3, 1, 2)
    x = x.to(device, memory_format=torch.channels_last)
    targets = [ClassifierOutputTarget(i % NUM_CLASSES) for i in range(len(x))]
    cam = GradCAM(model=model, target_layers=[model.layer4[-1]])

    def forward():
        with torch.inference_mode():
            plain(x)
        if device == "cuda":
            torch.cuda.synchronize()

    return {
        "resnet18 forward": forward,
        "resnet18 map at image size": lambda: cam(input_tensor=x, targets=targets),
    }


def _declare_torchvision_operators(torch) -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("--torch-python has no torchvision: pip install torchvision grad-cam")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        folder = spec.submodule_search_locations[0]
        source = Path(folder, "_meta_registrations.py").read_text()
        names = re.findall(r'register_meta\("(\w+)"\)|"torchvision::(\w+)"', source)
        library = torch.library.Library("torchvision", "DEF")
        for name in sorted({first or second for first, second in names}):
            library.define(f"{name}(Tensor x) -> Tensor")
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        # Kept: the operators live as long as it does.
        _declare_torchvision_operators.library = library


def work_when_told(work: dict[str, Callable[[], object]], seconds: float) -> None:
    """Worker: for every line on standard input, one round; its times go to standard output."""
    for task in work.values():
        task()
    print(json.dumps(_versions()), flush=True)
    for _ in sys.stdin:
        times = {}
        for name, task in work.items():
            calls, start = 0, time.perf_counter()
            while calls == 0 or time.perf_counter() - start < seconds:
                task()
                calls += 1
            times[name] = (time.perf_counter() - start) / calls
        print(json.dumps(times), flush=True)


def _versions() -> dict[str, str]:
    names = ("torch", "grad-cam") if "torch" in sys.modules else ("jax", "flax")
    return {name: importlib.metadata.version(name) for name in names}


def rounds_of(commands: dict[str, list[str]], rounds: int) -> Iterator[tuple[str, dict]]:
    """Starts a worker a side and asks them in turns; yields (side, versions or times)."""
    pipe = subprocess.PIPE
    workers = {
        side: subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        for side, command in commands.items()
    }
    try:
        for turn in range(rounds + 1):
            for side, worker in workers.items():
                assert worker.stdin is not None
                assert worker.stdout is not None
                if turn > 0:
                    worker.stdin.write("go\n")
                    worker.stdin.flush()
                line = worker.stdout.readline()
                if not line:
                    raise SystemExit(f"the {side} side failed; its message is above")
                yield side, json.loads(line)
    finally:
        for worker in workers.values():
            worker.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", help="interpreter with torch, torchvision and grad-cam")
    parser.add_argument("--native", action="store_true", help="363x360 instead of 64x64")
    parser.add_argument("--batch", type=int, help="images at once, instead of 64 or 16")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="of ours")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each task in a round")
    parser.add_argument("--worker", choices=("ours", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    batch, height, width = CASES["native" if args.native else "small"]
    batch = args.batch or batch
    if args.worker:
        shape = (batch, height, width)
        ours = args.worker == "ours"
        work_when_told(our_work(shape, args.models) if ours else torch_work(shape), args.seconds)
        return
    from rcmnet_jax.runtime import use_huge_pages

    # For both sides, which inherit the environment.
    use_huge_pages()
    options = [*(["--native"] if args.native else []), "--batch", str(batch)]
    options += ["--seconds", str(args.seconds), "--models", *args.models]
    pythons = {"ours": sys.executable}
    if args.torch_python:
        pythons["torch"] = args.torch_python
    commands = {s: [p, __file__, "--worker", s, *options] for s, p in pythons.items()}
    print(f"{height}x{width}, batch {batch}; {args.rounds} rounds in turns")
    seconds: dict[str, dict[str, list[float]]] = {side: {} for side in commands}
    for count, (side, told) in enumerate(rounds_of(commands, args.rounds)):
        if count < len(commands):
            print(side, told)
            continue
        for name, value in told.items():
            seconds[side].setdefault(name, []).append(value)
    report(seconds, batch, args.models)


def report(seconds: dict[str, dict[str, list[float]]], batch: int, models: list[str]) -> None:
    """Medians and ranges in images a second, and the two ratios that are asked for."""
    for side, tasks in seconds.items():
        for name, values in tasks.items():
            rates = sorted(batch / value for value in values)
            median = statistics.median(rates)
            print(f"{side:6}{name:30}{median:9.1f} images/s ({rates[0]:.1f} to {rates[-1]:.1f})")
    for name in models:
        for kind in ("raw map", "map at image size", "raw map, stage3"):
            pairs = zip(
                seconds["ours"][f"{name} {kind}"], seconds["ours"][f"{name} forward"], strict=True
            )
            ratio = statistics.median(m / f for m, f in pairs)
            print(f"{name}: a {kind} costs {ratio:.2f} forward passes")
    if "torch" in seconds and "resnet18" in models:
        task = "resnet18 map at image size"
        pairs = zip(seconds["torch"][task], seconds["ours"][task], strict=True)
        ratio = statistics.median(t / o for t, o in pairs)
        print(f"resnet18: {ratio:.1f} times the maps of pytorch-grad-cam")


if __name__ == "__main__":
    main()
