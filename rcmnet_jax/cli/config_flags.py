"""The flags of ``train.py``: a config file with overrides, a workdir, other processes."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rcmnet_jax.cli.arguments import user_path
from rcmnet_jax.errors import UserError
from rcmnet_jax.hosts.join import FLAGS

if TYPE_CHECKING:
    import ml_collections


def parse_flags(argv: list[str]) -> "tuple[ml_collections.ConfigDict, Path, dict[str, str]]":
    """Parses ``--config``, its overrides, ``--workdir`` and the flags of several processes.

    Returns:
      The config with its overrides, the workdir, and the address of the other processes.

    Raises:
      UserError: a missing or unknown flag, file, key or value.
    """
    from absl import flags

    argv = _find_config_file(argv)
    words = ["train.py", *argv]
    values = _config_flag(words)
    flags.DEFINE_string("workdir", None, "where the run is kept", flag_values=values)
    for flag in FLAGS:
        flags.DEFINE_string(flag, "", "of several processes", flag_values=values)
    try:
        rest = values(words)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(_unknown_key(argv) or _explain(error)) from error
    if len(rest) > 1:
        raise UserError(f"argument {rest[1]!r} is not understood: see python train.py --help")
    if not values.workdir:
        raise UserError("--workdir is missing: name the folder for the run, e.g. checkpoints/mine")
    address = {flag: values[flag].value for flag in FLAGS}
    return _with_home(values.config), _path(values.workdir), address


def _path(text: str) -> Path:
    try:
        return user_path(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(str(error)) from error


def _with_home(config):
    """The config with ``~`` expanded wherever a value begins with it; only paths do."""
    from rcmnet_jax.workdir.config_file import flatten_config

    for key, value in flatten_config(config).items():
        if isinstance(value, str) and value.startswith("~"):
            config.update_from_flattened_dict({key: str(_path(value))})
    return config


def _config_flag(words: list[str]):
    """Flags that know ``--config`` and the overrides among the words."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=words)
    return values


def _find_config_file(argv: list[str]) -> list[str]:
    """The arguments with the config file's path expanded; its checkout becomes importable."""
    for position, word in enumerate(argv):
        name, has_value, value = word.lstrip("-").partition("=")
        if name != "config" or not word.startswith("-"):
            continue
        if not has_value:
            value = argv[position + 1] if position + 1 < len(argv) else ""
        file, *arguments = value.split(":", 1)
        path = _path(file)
        if not path.is_file():
            raise UserError(f"config file {file!r} does not exist: {_where_configs_are()}")
        checkout = path.resolve().parent.parent
        if (checkout / "configs" / "base.py").is_file() and str(checkout) not in sys.path:
            sys.path.insert(0, str(checkout))
        found = f"--config={':'.join([str(path), *arguments])}"
        return [*argv[:position], found, *argv[position + (1 if has_value else 2) :]]
    raise UserError("--config is missing: e.g. --config configs/synthetic.py")


def _where_configs_are() -> str:
    known = ", ".join(str(p) for p in sorted(Path("configs").glob("[!_]*.py")))
    if known:
        return f"choose from {known}"
    return "there is no configs/ here; run this in a checkout of rcmnet-jax, or give the whole path"


def _unknown_key(argv: list[str]) -> str | None:
    """Error message for the first override that names no key; None where all exist."""
    import ml_collections
    from absl import flags

    is_override = re.compile("--?config[.]").match
    overrides = [word.lstrip("-").partition("=")[0] for word in argv if is_override(word)]
    words = ["train.py", *(word for word in argv if not is_override(word))]
    values = _config_flag(words)
    try:
        values(words, known_only=True)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError):
        # The file itself cannot be read: the caller reports that.
        return None
    for override in overrides:
        part, (_, *keys) = values.config, override.split(".")
        for depth, key in enumerate(keys):
            where = ".".join(["config", *keys[:depth]])
            if not isinstance(part, ml_collections.ConfigDict):
                return f"there is no key {override}: {where} is a value"
            if key not in part:
                return f"there is no key {override}: {where} has {', '.join(sorted(part))}"
            part = part[key]
    return None


def _explain(error: BaseException) -> str:
    """One line for an error of a config file, of absl or of ml_collections."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, UserError) and cause.__context__ is None):
        # ml_collections raises it again with a traceback as its text, and absl once more.
        cause = cause.__context__
    if cause is not None:
        return str(cause)
    text = " ".join(str(error).strip("'\"").split())
    return f"{text}: configs/base.py lists every key" if "config" in text else text
