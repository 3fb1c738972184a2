"""Where the network looked: class activation maps of the last feature map."""

from rcmnet_jax.explain.grad_cam import grad_cam as grad_cam
