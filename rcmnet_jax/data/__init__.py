"""Data: where images come from, their audit, TFDS records, splits, pixels and batches.

Importing this package registers its data sets with TFDS, see `rcmnet_jax.data.builders`. jax is
only needed by `rcmnet_jax.data.augment`.
"""

from rcmnet_jax.data.audit import Audit as Audit
from rcmnet_jax.data.audit import audit_source as audit_source
from rcmnet_jax.data.audit import audit_thoroughly as audit_thoroughly
from rcmnet_jax.data.cache import load_pixels as load_pixels
from rcmnet_jax.data.dataset import DATASET_NAMES as DATASET_NAMES
from rcmnet_jax.data.dataset import CellDataset as CellDataset
from rcmnet_jax.data.dataset import prepare_dataset as prepare_dataset
from rcmnet_jax.data.preprocess import Preprocess as Preprocess
from rcmnet_jax.data.preprocess import decode_image as decode_image
from rcmnet_jax.data.sources import open_source as open_source
from rcmnet_jax.data.splits import Split as Split
from rcmnet_jax.data.splits import make_folds as make_folds
from rcmnet_jax.data.splits import make_leave_one_group_out as make_leave_one_group_out
from rcmnet_jax.data.splits import make_split as make_split
from rcmnet_jax.data.splits import read_split_csv as read_split_csv
from rcmnet_jax.data.splits import write_split_csv as write_split_csv
from rcmnet_jax.data.statistics import channel_statistics as channel_statistics
