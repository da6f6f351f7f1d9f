"""Checks of options: an unknown one is an error that names the nearest known one."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from pam.errors import PamError
from pam.registry import nearest


def check_keys(conf: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """PamError for an unknown option, with the place and the nearest known option."""
    allowed = list(allowed)
    for key in conf:
        if key not in allowed:
            raise PamError(f"{where}: unknown option {key!r}: {nearest(str(key), allowed)}")


def check_init_options(cls: type, conf: Mapping[str, Any], where: str) -> None:
    """PamError for an option that is no argument with a default of the constructor of `cls`."""
    arguments = inspect.signature(cls.__init__).parameters.values()
    check_keys(conf, [a.name for a in arguments if a.default is not a.empty], where)
