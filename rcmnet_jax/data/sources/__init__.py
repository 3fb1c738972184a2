"""Where images come from: class folders, a zip of class folders, or a CSV manifest."""

from rcmnet_jax.data.sources.open_source import Layout as Layout
from rcmnet_jax.data.sources.open_source import Source as Source
from rcmnet_jax.data.sources.open_source import open_source as open_source
from rcmnet_jax.data.sources.source_file import IgnoredFile as IgnoredFile
from rcmnet_jax.data.sources.source_file import SourceFile as SourceFile
