"""Errors that a user can cause: one line that names the remedy.

The command line prints the message of a `UserError` and exits with status 2, without a
traceback. Anything else that escapes is a bug and keeps its traceback.
"""


class UserError(ValueError):
    """A mistake in what the user gave: a path, a config value, a file, a checkpoint.

    The message is one line: what is wrong, with the value, and what to do about it. A value with
    line breaks (a column's name, say) does not make it two.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


class DataError(UserError):
    """The images, manifest or split cannot be used as they are."""


class BadImageError(DataError):
    """One image file cannot be turned into an RGB array (not an image, truncated, too large)."""


class ConfigError(UserError):
    """A config key or value is unknown, missing, or contradicts another."""


class CheckpointError(UserError):
    """A checkpoint is missing, corrupted, or belongs to another model or data set."""


class TrainingError(UserError):
    """Training cannot go on, for instance because the loss is no longer finite."""
