"""Argument types that several commands share."""

import argparse
from pathlib import Path


def user_path(text: str) -> Path:
    """A path as the user typed it, with a leading ``~`` or ``~name`` replaced by the home folder.

    Shells expand ``~`` only at the start of a word, so ``--out=~/a`` arrives unexpanded.

    Raises:
      argparse.ArgumentTypeError: there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(
            f"{text}: that home folder does not exist here; write the path in full"
        ) from error


def user_path_text(text: str) -> str:
    """`user_path` for arguments that may also be empty or something other than a path."""
    return str(user_path(text)) if text.startswith("~") else text
