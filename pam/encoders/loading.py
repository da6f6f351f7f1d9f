"""Load all pretrained weights from a folder or the hub, or raise an error."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import logging

from pam.checkpoint import read_checkpoint
from pam.errors import PamError
from pam.paths import resolve_model

_SHAPE: ContextVar[Mapping[str, Any] | None] = ContextVar("_SHAPE", default=None)


@contextmanager
def without_weights(config: Mapping[str, Any]) -> Iterator[None]:
    """Context in which `load_pretrained` makes the model of `config` and reads no file.

    For an encoder whose weights come with those of a larger model (`pam.hf`). New tensors are
    float32, as everywhere in an encoder, where nothing else is said.
    """
    token, dtype = _SHAPE.set(config), torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        _SHAPE.reset(token)


def load_pretrained(
    cls: Any,
    path: str,
    *,
    dtype: torch.dtype,
    key_mapping: Mapping[str, str] | None = None,
    optional: Iterable[str] = (),
    foreign: Iterable[str] = (),
    original: tuple[PreTrainedConfig, Mapping[str, Tensor]] | None = None,
    **options: Any,
) -> Any:
    """`cls.from_pretrained(path)`, refusing weights that are missing, left over or misshapen.

    path: `cache:NAME`, a folder, or a name on the hub. key_mapping: regular expressions that
    rename the checkpoint's keys. optional: patterns of weights that may be missing (unused here).
    foreign: patterns of the checkpoint's keys that belong to parts we leave out (a decoder, a
    head). original: the configuration and weights that `path` was found to hold, where
    `from_pretrained` cannot read it. Raises PamError; nothing is ever initialised at random.
    """
    if (shape := _SHAPE.get()) is not None:
        return cls._from_config(cls.config_class.from_dict(dict(shape)), dtype=dtype)
    if original:
        folder, options = None, options | {"config": original[0], "state_dict": dict(original[1])}
    else:
        folder = resolve_model(path)
    try:
        with quiet():
            model, info = cls.from_pretrained(
                folder,
                dtype=dtype,
                key_mapping=dict(key_mapping or {}),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **options,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise PamError(
            f"model {path!r} cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    _refuse(path, "lacks the weights", info["missing_keys"], optional)
    _refuse(path, "has unknown weights", info["unexpected_keys"], foreign)
    shapes = [f"{key} {[*theirs]}, not {[*ours]}" for key, theirs, ours in info["mismatched_keys"]]
    _refuse(path, "has weights of another shape:", shapes, ())
    return model


def read_original(path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`cfg` and `model` of a checkpoint as fairseq and its kin save it, a single .pt file."""
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= {"cfg", "model"}:
        raise PamError(
            f"model {path!r} is not a dictionary with 'cfg' and 'model': is it the original file?"
        )
    return checkpoint["cfg"], checkpoint["model"]


def require(path: str, config: PreTrainedConfig, values: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose architecture differs from the one that is implemented."""
    for key, value in values.items():
        if getattr(config, key) != value:
            raise PamError(
                f"model {path!r}: {key} is {getattr(config, key)!r}, only {value!r} is supported"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bar and its report on the keys, which are checked here."""
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
        raise PamError(
            f"model {path!r} {what} {some} ({len(bad)}): is it a checkpoint of this family?"
        )
