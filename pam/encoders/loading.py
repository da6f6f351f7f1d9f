"""Pretrained weights out of a folder or the hub: all of them, or an error."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging

from pam.errors import UserError
from pam.paths import resolve_model


def load_pretrained(
    cls: Any,
    path: str,
    *,
    dtype: torch.dtype,
    key_mapping: Mapping[str, str] | None = None,
    optional: Iterable[str] = (),
    foreign: Iterable[str] = (),
    **options: Any,
) -> Any:
    """`cls.from_pretrained(path)`, refusing weights that are missing, left over or misshapen.

    path: `cache:NAME`, a folder, or a name on the hub. key_mapping: regular expressions that
    rename the checkpoint's keys. optional: patterns of weights that may be missing (unused here).
    foreign: patterns of the checkpoint's keys that belong to parts we leave out (a decoder, a
    head). Raises UserError; nothing is ever initialised at random.
    """
    folder = resolve_model(path)
    try:
        with _quiet():
            model, info = cls.from_pretrained(
                folder,
                dtype=dtype,
                key_mapping=dict(key_mapping or {}),
                output_loading_info=True,
                **options,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"model {path!r} cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    _refuse(path, "lacks the weights", info["missing_keys"], optional)
    _refuse(path, "has unknown weights", info["unexpected_keys"], foreign)
    _refuse(path, "has weights of another shape:", map(str, info["mismatched_keys"]), ())
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' report on the keys, which we judge ourselves, and its progress bar."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refuse(path: str, what: str, keys: Iterable[str], patterns: Iterable[str]) -> None:
    patterns = list(patterns)
    bad = sorted(key for key in keys if not any(re.search(p, key) for p in patterns))
    if bad:
        some = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
        raise UserError(
            f"model {path!r} {what} {some} ({len(bad)}): is it a checkpoint of this family?"
        )
