"""``rcmnet doctor``: what it finds here, and what it would say elsewhere."""

import json
import os
import subprocess
import sys

import jax
import pytest

from rcmnet_jax.cli import machine
from rcmnet_jax.cli.main import main

CPU = {"backend": "cpu", "devices": "cpu x 1"}
CARD = {"driver": "580.12", "cards": ["NVIDIA A100, 580.12, 40960 MiB"]}
NO_CARD = {"driver": None, "cards": [], "device_files": []}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(machine, "CHECK_SECONDS", 0.01)
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)


def test_this_machine_is_well(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["missing"] == []
    assert findings["convolution"]["ok"]
    assert findings["versions"]["jax"] == jax.__version__
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("packages", "devices", "cuda", "memory", "compiled", "convolution", "advice"):
        assert word in out


def test_require_gpu_fails_without_one(capsys):
    assert main(["doctor", "--require-gpu"]) == (0 if jax.default_backend() == "gpu" else 2)


@pytest.mark.parametrize(
    ("facts", "nvidia", "plugin", "environment", "told"),
    [
        (CPU, NO_CARD, None, {}, "no NVIDIA card found"),
        (CPU, {**NO_CARD, "error": "driver mismatch"}, None, {}, "driver mismatch"),
        (CPU, {**NO_CARD, "device_files": ["/dev/nvidia0"]}, None, {}, "not installed completely"),
        (CPU, CARD, None, {}, "no CUDA plugin"),
        (CPU, CARD, "0.9.0", {}, "they must be equal"),
        (CPU, CARD, "0.10.2", {}, "does not use them"),
        (CPU, CARD, "0.10.2", {"JAX_PLATFORMS": "cpu"}, "JAX_PLATFORMS=cpu"),
        (CPU, CARD, "0.10.2", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES"),
        ({"backend": "gpu"}, CARD, "0.10.2", {}, "works"),
        ({"error": "boom"}, CARD, "0.10.2", {}, "jax does not start: boom"),
    ],
)
def test_why_cuda_does_not_work(monkeypatch, facts, nvidia, plugin, environment, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    versions = {"jax-cuda12-plugin": plugin, "jax-cuda13-plugin": None, "jaxlib": "0.10.2"}
    assert told in machine._why_cuda(facts, nvidia, versions)


@pytest.mark.parametrize(("driver", "major"), [("580.12", 13), ("535.10", 12), (None, 12)])
def test_which_cuda_to_install(driver, major):
    assert machine._cuda_for(driver) == major


def test_a_broken_convolution_is_told_and_is_no_success(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no such kernel\nmore")

    monkeypatch.setattr("rcmnet_jax.kernels.conv.conv2d", broken)
    assert main(["doctor"]) == 2
    assert "WRONG: no such kernel" in capsys.readouterr().out


def test_a_wrong_convolution_is_told(monkeypatch, capsys):
    from rcmnet_jax.kernels import conv

    right = conv.conv2d
    monkeypatch.setattr(conv, "conv2d", lambda x, k, **options: 1.1 * right(x, k, **options))
    assert main(["doctor"]) == 2
    assert "off by" in capsys.readouterr().out


def test_a_platform_that_is_not_here_is_no_wrong_convolution():
    code = "from rcmnet_jax.cli.main import main; print('status', main(['doctor']))"
    environment = {**os.environ, "JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "status 2"
    assert "convolution  not tried: jax does not start" in done.stdout
    assert "unset JAX_PLATFORMS" in done.stdout
    assert "all is well" not in done.stdout
    assert "Traceback" not in done.stderr


def test_a_folder_is_tried_by_writing(monkeypatch, capsys):
    monkeypatch.setenv("RCMNET_DATA_DIR", "/proc/self")
    main(["doctor"])
    assert "/proc/self: NOT writable" in capsys.readouterr().out
