"""Utterances of tar shards in the layout of WebDataset (pam/data/webdataset.py).

A sample is an utterance: its audio (flac, wav …), its text (txt, or a field of json) and its
speaker (a field of json). The audio stays in the shards.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pam.data.importing import Item, LeftOut
from pam.data.parquet import SUFFIXES, audio_suffix
from pam.data.shards import open_member
from pam.data.webdataset import TarMember, samples
from pam.errors import PamError

AUDIO = {suffix[1:] for suffix in SUFFIXES} | {"aif", "oga", "opus"}
BEGINNING = 16


def read_samples(
    shards: Sequence[Path], text: str | None, audio: str | None, speaker: str | None
) -> Iterator[Item | LeftOut]:
    """The utterances of shards.

    `text` and `speaker` are fields of json; without `text`, the text is the member txt. `audio` is
    the suffix of the audio's member, needed if a sample has several.
    """
    for shard in shards:
        for key, found in samples(shard):
            yield _item(f"{shard}: {key}", key, found, text, audio, speaker or "speaker")


def _item(
    where: str,
    key: str,
    found: list[TarMember],
    text: str | None,
    audio: str | None,
    speaker: str,
) -> Item | LeftOut:
    sounds = [m for m in found if (m.suffix == audio if audio else _is_named_audio(m))]
    if len(sounds) > 1:
        names = ", ".join(member.suffix for member in sounds)
        raise PamError(f"{where}: several audio files ({names}): choose one with --audio_column")
    if not sounds:
        return LeftOut(where, "without audio")
    if not audio_suffix(open_member(sounds[0].entry).read(BEGINNING)):
        return LeftOut(where, "not an audio file that is known")
    by_suffix = {member.suffix: member for member in found}
    facts = _facts(where, by_suffix)
    words = facts.get(text or "text") if text or "txt" not in by_suffix else None
    if not text and "txt" in by_suffix:
        words = _decoded(where, by_suffix["txt"])
    if not isinstance(words, str | None):
        raise PamError(f"{where}: {text or 'text'} is {words!r}, not a text: write it as a string")
    name = facts.get(speaker)
    return Item(where, key, sounds[0].entry, words or "", None if name is None else str(name))


def _is_named_audio(member: TarMember) -> bool:
    return member.suffix.rpartition(".")[2] in AUDIO


def _facts(where: str, by_suffix: dict[str, TarMember]) -> dict[str, Any]:
    """The fields of the member json; none if there is no such member."""
    if "json" not in by_suffix:
        return {}
    content = _decoded(where, by_suffix["json"])
    try:
        facts = json.loads(content)
    except ValueError as error:
        raise PamError(f"{where}: its json is damaged ({error}): pack it again") from error
    if not isinstance(facts, dict):
        raise PamError(f"{where}: its json is {content[:60]!r}: write an object with fields")
    return facts


def _decoded(where: str, member: TarMember) -> str:
    try:
        return member.content().decode("utf-8")
    except UnicodeDecodeError as error:
        raise PamError(f"{where}: {member.suffix} is not UTF-8: pack it as UTF-8") from error
