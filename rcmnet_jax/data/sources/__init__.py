"""Where images come from: class folders, a zip of class folders, or a CSV manifest."""

from rcmnet_jax.data.sources.files import IgnoredFile as IgnoredFile
from rcmnet_jax.data.sources.files import SourceFile as SourceFile
from rcmnet_jax.data.sources.opening import Layout as Layout
from rcmnet_jax.data.sources.opening import Source as Source
from rcmnet_jax.data.sources.opening import open_source as open_source
