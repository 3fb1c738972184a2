import pytest

from rcmnet_jax.models import conv, max_pool


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def rules(request, monkeypatch):
    """The formulations of a backend, computed on this one."""
    for module in (conv, max_pool):
        monkeypatch.setattr(module, "backend", lambda: request.param)
    return request.param
