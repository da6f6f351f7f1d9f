"""The NXT annotations of AMI (ami_public_manual_1.6.2), and the utterances in them.

    corpusResources/meetings.xml          the agents A to E of a meeting: speaker and headset
    words/MEETING.AGENT.words.xml         <w> with times, punctuation as words with punc="true",
                                          vocalsound, disfmarker, gap …
    segments/MEETING.AGENT.segments.xml   <segment>, which points at a range of words

Channel N of a speaker is the recording MEETING.Headset-N.wav. A segment lasts from the first of its
elements to the last, noises included, as NXT derives it. A word that was broken off (trunc="true")
is kept as it is written, as in Kaldi's recipe: it was spoken.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ami_split import Token, pieces, text_of
from ami_utterances import EMPTY, NO_SPEAKER, NO_TIME, NO_WORDS, Utterance, centiseconds

from pam.errors import PamError

NITE = "{http://nite.sourceforge.net/}"
POINTER = re.compile(r"[^#]*#id\(([^)]+)\)(?:\.\.id\(([^)]+)\))?")
Faults = dict[str, list[str]]
Speakers = dict[tuple[str, str], tuple[str, int]]  # (meeting, agent) → (speaker, channel)


@dataclass(frozen=True)
class Segment:
    """Ids of its first and last elements (several ranges are possible), the transcriber's times."""

    id: str
    ranges: list[tuple[str, str]]
    start: float | None
    end: float | None


def annotations_in(corpus: Path) -> Path:
    """The folder with words/, segments/ and corpusResources/."""
    for name in ("", "annotations", "ami_public_manual_1.6.2"):
        if (corpus / name / "corpusResources/meetings.xml").is_file():
            return corpus / name
    raise PamError(
        f"{corpus}: no corpusResources/meetings.xml, nor in annotations/: unpack "
        "ami_public_manual_1.6.2.zip there (local/download.py does it)"
    )


def read_speakers(annotations: Path) -> Speakers:
    speakers = {}
    for meeting in _parse(annotations / "corpusResources/meetings.xml"):
        for agent in meeting.iter("speaker"):
            name, channel = agent.get("global_name"), agent.get("channel", "")
            if name and channel.isdigit():
                speakers[meeting.get("observation"), agent.get("nxt_agent")] = (name, int(channel))
    return speakers


def read_meeting(
    annotations: Path, meeting: str, speakers: Speakers, faults: Faults
) -> Iterator[Utterance]:
    """The utterances of a meeting; reasons of what is left out are added to `faults`."""
    for file in sorted(annotations.glob(f"segments/{meeting}.*.segments.xml")):
        agent = file.name.split(".")[1]
        if (meeting, agent) not in speakers:
            faults[NO_SPEAKER].append(f"{meeting}.{agent}")
            continue
        words = annotations / f"words/{meeting}.{agent}.words.xml"
        tokens = read_tokens(words)
        places = {token.id: place for place, token in enumerate(tokens)}
        for segment in read_segments(file):
            yield from _utterances(
                segment, tokens, places, meeting, *speakers[meeting, agent], faults
            )


def read_tokens(file: Path) -> list[Token]:
    """All elements of a words file, in order."""
    if not file.is_file():
        return []  # its segments are reported one by one
    return [_token(element) for element in _parse(file)]


def _token(element: ET.Element) -> Token:
    is_word = element.tag == "w" and element.text is not None
    kind = "other" if not is_word else "mark" if element.get("punc") == "true" else "word"
    text = " ".join((element.text or "").split()) if is_word else ""
    times = _seconds(element.get("starttime")), _seconds(element.get("endtime"))
    return Token(element.get(f"{NITE}id", ""), kind, text, *times)


def read_segments(file: Path) -> Iterator[Segment]:
    for element in _parse(file).iter("segment"):
        found = [POINTER.fullmatch(child.get("href", "")) for child in element.iter(f"{NITE}child")]
        ranges = [(match[1], match[2] or match[1]) for match in found if match]
        times = [_seconds(element.get(f"transcriber_{name}")) for name in ("start", "end")]
        yield Segment(element.get(f"{NITE}id", ""), ranges, *times)


def _utterances(
    segment: Segment, tokens: list[Token], places: dict[str, int], meeting: str, speaker: str,
    channel: int, faults: Faults,
) -> Iterator[Utterance]:  # fmt: skip
    if unknown := {end for ends in segment.ranges for end in ends} - places.keys():
        faults[NO_WORDS].append(f"{segment.id} ({min(unknown)})")
        return
    found = [
        token
        for first, last in segment.ranges
        for token in tokens[places[first] : places[last] + 1]
    ]
    start = min((t.start for t in found if t.start is not None), default=segment.start)
    end = max((t.end for t in found if t.end is not None), default=segment.end)
    if start is None or end is None:
        faults[NO_TIME].append(segment.id)
        return
    is_empty = True
    for piece in pieces(found, start, end):
        text = text_of(piece.tokens)
        is_empty = is_empty and not text
        # Kaldi cuts times to hundredths, it does not round them: ids agree with its recipe.
        utterance = Utterance(
            meeting,
            channel,
            speaker,
            int(100 * piece.start) / 100,
            int(100 * piece.end) / 100,
            text,
        )
        if text and centiseconds(utterance.end) <= centiseconds(utterance.start):
            faults[NO_TIME].append(utterance.id)
        elif text:
            yield utterance
    if is_empty:
        faults[EMPTY].append(segment.id)


def _parse(file: Path) -> ET.Element:
    try:
        return ET.parse(file).getroot()
    except (ET.ParseError, OSError) as error:
        raise PamError(
            f"{file}: not readable XML ({error}): unpack the annotations again"
        ) from error


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "nan")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
