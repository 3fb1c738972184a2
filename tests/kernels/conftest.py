import pytest

from rcmnet_jax.kernels.backend import formulated_for


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def rules(request):
    """The kernels of each backend, computed on this one."""
    with formulated_for(request.param):
        yield request.param
