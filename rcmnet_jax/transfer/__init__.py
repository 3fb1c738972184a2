"""Transfer of weights between networks and data sets."""

from rcmnet_jax.transfer.batch_norm import reestimate_batch_stats as reestimate_batch_stats
from rcmnet_jax.transfer.batch_norm import reestimate_on as reestimate_on
from rcmnet_jax.transfer.freezing import trainable_paths as trainable_paths
from rcmnet_jax.transfer.surgery import TransferReport as TransferReport
from rcmnet_jax.transfer.surgery import resize_position_table as resize_position_table
from rcmnet_jax.transfer.surgery import transfer_params as transfer_params
