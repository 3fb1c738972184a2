"""What this machine has and lacks for training and prediction. Nothing here is allowed to raise."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import rcmnet_jax
from rcmnet_jax.data.storage import DATA_DIR_VARIABLE, resolve_data_dir
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import can_write
from rcmnet_jax.runtime import CACHE_VARIABLE, compile_cache_dir, machine_memory

# Package -> what is missing without it.
REQUIRED = {
    "jax": "everything",
    "jaxlib": "everything",
    "flax": "everything",
    "numpy": "everything",
    "pillow": "reading images",
    "safetensors": "bundles",
    "optax": "training",
    "orbax-checkpoint": "training",
    "grain": "training",
    "tensorflow-datasets": "training",
    "ml_collections": "training",
}
OPTIONAL = {
    "onnx": "rcmnet-jax[onnx]: ONNX export",
    "onnxruntime": "rcmnet-jax[onnx]: ONNX export",
    "torch": "rcmnet-jax[torch]: .pth files (safetensors work without)",
    "jax-cuda12-plugin": "rcmnet-jax[cuda12]: NVIDIA GPUs, CUDA 12",
    "jax-cuda13-plugin": "rcmnet-jax[cuda13]: NVIDIA GPUs, CUDA 13",
}
# How long the convolution is repeated, in seconds.
CHECK_SECONDS = 1.0


def examine() -> dict[str, Any]:
    """Everything, ready for JSON."""
    versions = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    nvidia = _nvidia_smi()
    jax_facts = _jax_facts()
    folders = _folders()
    return {
        "rcmnet_jax": rcmnet_jax.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "missing": [name for name in REQUIRED if versions[name] is None],
        "jax": jax_facts,
        "nvidia": nvidia,
        "cuda": _why_cuda(jax_facts, nvidia, versions),
        "memory": machine_memory(),
        "cores": _cores(),
        "folders": folders,
        "convolution": _convolution(jax_facts),
        "advice": _advice(jax_facts, nvidia, versions, folders),
    }


def table(findings: dict[str, Any]) -> str:
    """The findings for a terminal."""
    versions, facts = findings["versions"], findings["jax"]
    installed = ", ".join(f"{name} {v}" for name, v in versions.items() if v)
    memory, check = findings["memory"], findings["convolution"]
    lines = [
        f"rcmnet-jax   {findings['rcmnet_jax']}, Python {findings['python']}, {findings['system']}",
        f"packages     {installed}",
        f"devices      {facts.get('devices') or facts.get('error')}",
        f"cuda         {findings['cuda']}",
        f"memory       {_gigabytes(memory['available'])} of {_gigabytes(memory['total'])} free,"
        f" {findings['cores']} cores",
    ]
    for name, folder in findings["folders"].items():
        state = "writable" if folder["writable"] else "NOT writable"
        lines.append(
            f"{name:<13}{folder['path']}: {state}, {_gigabytes(folder['used'])} used,"
            f" {_gigabytes(folder['free'])} free"
        )
    if check["ok"]:
        lines.append(
            f"convolution  right (to {check['worst']:.0e}), {check['gflops']:.0f} GFLOP/s on"
            f" {check['backend']}"
        )
    elif "error" in facts:
        lines.append("convolution  not tried: jax does not start")
    else:
        lines.append(f"convolution  WRONG: {check['error']}")
    lines += [f"advice       {line}" for line in findings["advice"] or ["none, all is well"]]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _jax_facts() -> dict[str, Any]:
    try:
        import jax

        devices = jax.devices()
        backend = jax.default_backend()
    except Exception as error:  # Plugins fail in their own ways; the text is what is wanted.
        platforms = os.environ.get("JAX_PLATFORMS")
        said = f"no device for JAX_PLATFORMS={platforms}" if platforms else ""
        return {"error": _first_line(error) if str(error).strip() or not said else said}
    facts = {
        "backend": backend,
        "devices": f"{backend} x {len(devices)} ({devices[0].device_kind})",
        "count": len(devices),
    }
    statistics = devices[0].memory_stats() if backend == "gpu" else None
    if statistics:
        facts["device_memory"] = statistics.get("bytes_limit")
    return facts


def _nvidia_smi() -> dict[str, Any]:
    """Driver and cards as ``nvidia-smi`` tells them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        devices = sorted(str(p) for p in Path("/dev").glob("nvidia[0-9]*"))
        return {"driver": None, "cards": [], "device_files": devices}
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return {"driver": None, "cards": [], "error": _first_line(error)}
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        return {"driver": None, "cards": [], "error": said[0] if said else "it failed"}
    cards = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return {"driver": cards[0].split(",")[1].strip() if cards else None, "cards": cards}


def _why_cuda(jax_facts: dict, nvidia: dict, versions: dict[str, str | None]) -> str:
    """One line: CUDA works, or the first thing that keeps it from working."""
    plugin = versions["jax-cuda12-plugin"] or versions["jax-cuda13-plugin"]
    if jax_facts.get("backend") == "gpu":
        return f"works, plugin {plugin}, driver {nvidia['driver']}"
    if "error" in jax_facts:
        return f"jax does not start: {jax_facts['error']}"
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen and not re.search("cuda|gpu", chosen):
        return f"not used: JAX_PLATFORMS={chosen} says so"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return "not used: CUDA_VISIBLE_DEVICES hides the cards"
    if not nvidia["cards"]:
        if nvidia.get("device_files"):
            return "cards are there, but nvidia-smi is not: the driver is not installed completely"
        return f"no NVIDIA card found ({nvidia.get('error', 'there is no nvidia-smi')})"
    if plugin is None:
        return "there is a card, but jax has no CUDA plugin"
    if plugin != versions["jaxlib"]:
        return f"the plugin is {plugin}, jaxlib {versions['jaxlib']}: they must be equal"
    return "there are a card and a plugin, and jax does not use them: see its warning above"


def _advice(
    jax_facts: dict, nvidia: dict, versions: dict[str, str | None], folders: dict[str, dict]
) -> list[str]:
    advice = []
    missing = [name for name in REQUIRED if versions[name] is None]
    if missing:
        advice.append(f"pip install {' '.join(missing)} ({REQUIRED[missing[0]]})")
    if nvidia["cards"] and jax_facts.get("backend") != "gpu":
        major = _cuda_for(nvidia["driver"])
        advice.append(f"for the GPU: pip install -c constraints.txt 'rcmnet-jax[cuda{major}]'")
    if "error" in jax_facts:
        advice.append(
            "unset JAX_PLATFORMS, or set it to cpu: jax has no such device here"
            if os.environ.get("JAX_PLATFORMS")
            else "install jax again: pip install -c constraints.txt rcmnet-jax"
        )
    for folder in folders.values():
        if not folder["writable"]:
            advice.append(
                f"{folder['path']} is not writable: set {folder['variable']} to another folder"
            )
    return advice


def _cuda_for(driver: str | None) -> int:
    """CUDA 13 takes driver 580 or newer."""
    number = re.match(r"\d+", driver or "")
    return 13 if number and int(number[0]) >= 580 else 12


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folders() -> dict[str, dict[str, Any]]:
    """The folders that this library writes to without being asked."""
    places = {
        "compiled": (compile_cache_dir, CACHE_VARIABLE),
        "data": (resolve_data_dir, DATA_DIR_VARIABLE),
    }
    found = {}
    for name, (folder, variable) in places.items():
        try:
            path = folder()
        except (RuntimeError, UserError):
            path = None
        if path is None and os.environ.get(variable) == "off":
            continue
        facts = {"writable": False, "used": 0, "free": 0} if path is None else _disk(path)
        found[name] = {"path": str(path or "the home folder"), "variable": variable, **facts}
    return found


def _disk(path: Path) -> dict[str, Any]:
    try:
        existing = next(p for p in (path, *path.parents) if p.exists())
        used = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        free = shutil.disk_usage(existing).free
    except OSError:
        used, free = 0, 0
    return {"writable": can_write(path), "used": used, "free": free}


def _convolution(jax_facts: dict[str, Any]) -> dict[str, Any]:
    """A 3x3 convolution against numpy, and its speed."""
    if "error" in jax_facts:
        return {"ok": False, "error": jax_facts["error"]}
    try:
        import jax
        import numpy as np

        from rcmnet_jax.kernels.conv import conv2d

        rng = np.random.default_rng(0)
        x = rng.standard_normal((8, 32, 32, 64)).astype(np.float32)
        kernel = rng.standard_normal((3, 3, 64, 64)).astype(np.float32)
        compiled = jax.jit(lambda x, k: conv2d(x, k, padding=1))
        y = np.asarray(compiled(x, kernel))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64)
        expected = sum(
            padded[:, i : i + 32, j : j + 32] @ kernel[i, j].astype(np.float64)
            for i in range(3)
            for j in range(3)
        )
        worst = float(np.abs(y - expected).max() / np.abs(expected).max())
        x, kernel = jax.device_put(x), jax.device_put(kernel)
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < CHECK_SECONDS:
            compiled(x, kernel).block_until_ready()
            count += 1
        seconds = (time.perf_counter() - started) / count
    except Exception as error:  # Whatever a broken installation raises is the finding.
        return {"ok": False, "error": _first_line(error)}
    facts = {"worst": worst, "backend": jax.default_backend()}
    # TF32 on recent GPUs has ten bits of mantissa.
    if worst > 5e-3:
        return {"ok": False, "error": f"off by {worst:.1e} of the largest value", **facts}
    return {"ok": True, "gflops": 2 * 9 * 64 * y.size / seconds / 1e9, **facts}


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
