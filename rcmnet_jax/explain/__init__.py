"""Class activation maps, attention maps, and scores of how far they can be trusted."""

from rcmnet_jax.explain.grad_cam import ClassMaps as ClassMaps
from rcmnet_jax.explain.grad_cam import class_maps as class_maps
from rcmnet_jax.explain.grad_cam import grad_cam as grad_cam
from rcmnet_jax.explain.map_layers import layer_grid as layer_grid
from rcmnet_jax.explain.map_layers import layer_names as layer_names
