"""Splits into train, validation and test parts, folds, and their CSV files."""

from rcmnet_jax.data.splits.folds import make_folds as make_folds
from rcmnet_jax.data.splits.folds import make_leave_one_group_out as make_leave_one_group_out
from rcmnet_jax.data.splits.given_split import make_given_split as make_given_split
from rcmnet_jax.data.splits.split_csv import read_split_csv as read_split_csv
from rcmnet_jax.data.splits.split_csv import write_split_csv as write_split_csv
from rcmnet_jax.data.splits.split_levels import GROUP_CHOICES as GROUP_CHOICES
from rcmnet_jax.data.splits.split_levels import GROUP_LEVELS as GROUP_LEVELS
from rcmnet_jax.data.splits.split_levels import choose_groups as choose_groups
from rcmnet_jax.data.splits.split_protocols import PROTOCOLS as PROTOCOLS
from rcmnet_jax.data.splits.split_protocols import make_split as make_split
from rcmnet_jax.data.splits.split_table import DROPPED as DROPPED
from rcmnet_jax.data.splits.split_table import PARTS as PARTS
from rcmnet_jax.data.splits.split_table import Split as Split
