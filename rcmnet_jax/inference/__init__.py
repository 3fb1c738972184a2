"""A trained network, one batched pass over images, and the gate that judges them."""

from rcmnet_jax.inference.batched import BatchedPass as BatchedPass
from rcmnet_jax.inference.batched import predict_step as predict_step
from rcmnet_jax.inference.gate import Gate as Gate
from rcmnet_jax.inference.gate import fit_gate as fit_gate
from rcmnet_jax.inference.network import TrainedNetwork as TrainedNetwork
from rcmnet_jax.inference.outputs import Outputs as Outputs
from rcmnet_jax.inference.outputs import logits as logits
from rcmnet_jax.inference.outputs import logits_features_colours as logits_features_colours
from rcmnet_jax.inference.outputs import logits_of_features as logits_of_features
from rcmnet_jax.inference.outputs import mean_features as mean_features
from rcmnet_jax.inference.outputs import softmax as softmax
