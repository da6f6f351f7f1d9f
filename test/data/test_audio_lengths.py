"""Every format that libsndfile writes, whole, cut, joined, of unknown or wrong length.

Either all of the audio is read or the file is refused: never is a part of it lost without a word.
"""

import re

import pytest
import soundfile
from audio_files import SAMPLES, STATED, encode

from pam.data.audio import check_audio, num_samples, read_audio, stated_seconds
from pam.errors import PamError

ALL, TWICE, REFUSED = "all", "twice", "refused"
NOTED = "all, noted"  # its header is wrong, or states nothing
PART = "part, noted"  # states no length: a cut cannot be seen, which is said


MADE = {
    "whole": lambda form, content: content,
    "cut": lambda form, content: content[: len(content) * 6 // 10],
    "joined": lambda form, content: content + content,
    "unknown": lambda form, content: STATED[form](content, lambda number: 0),
    "endless": lambda form, content: STATED[form](content, lambda number: 1 << 63),
    "too little": lambda form, content: STATED[form](content, lambda number: number // 2),
    "too much": lambda form, content: STATED[form](content, lambda number: number * 2),
}
# What each case gives, in the order of MADE; None: there is no such number.
SIZED = (ALL, REFUSED, REFUSED, ALL, ALL, REFUSED, REFUSED)
COUNTED = (ALL, REFUSED, REFUSED, NOTED, NOTED, REFUSED, REFUSED)
NO_LENGTH = (NOTED, PART, REFUSED, None, None, None, None)
EXPECTED = {
    "AIFF": SIZED, "AU": SIZED, "CAF": SIZED, "RF64": SIZED, "SVX": SIZED, "W64": SIZED,
    "WAV": SIZED, "WAVEX": SIZED,
    "AVR": COUNTED, "MPC2K": COUNTED, "NIST": COUNTED, "WVE": COUNTED,
    "FLAC": (ALL, REFUSED, TWICE, ALL, REFUSED, NOTED, REFUSED),
    "MP3": (ALL, REFUSED, TWICE, ALL, REFUSED, NOTED, REFUSED),
    "OGG": (ALL, REFUSED, TWICE, REFUSED, REFUSED, REFUSED, REFUSED),
    "MAT4": (ALL, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    "MAT5": (ALL, REFUSED, REFUSED, NOTED, REFUSED, REFUSED, REFUSED),
    "SDS": (ALL, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    "VOC": (ALL, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    "HTK": (ALL, REFUSED, REFUSED, None, None, None, None),
    "IRCAM": NO_LENGTH, "PAF": NO_LENGTH, "PVF": NO_LENGTH, "XI": NO_LENGTH,
}  # fmt: skip
CASES = [
    pytest.param(form, case, expected, id=f"{form}-{case}")
    for form, row in EXPECTED.items()
    for case, expected in zip(MADE, row, strict=True)
    if expected
]
RATES = {"XI": 44100, "WVE": 8000}  # libsndfile writes no other
NO_LENGTHS_TOLD = ("Format not recognised", "page is not complete", "begin", "SF_INFO", "FORM")


def read(path, samples=SAMPLES, rate=16000):
    """(outcome, samples at the file's rate, all that is told the user) by all ways to read it."""
    try:
        reading = read_audio(path)
    except PamError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and "\n" not in message
        with pytest.raises(PamError):
            check_audio(path)
        return REFUSED, 0, message
    check_audio(path)
    count = len(reading.samples)
    assert abs(num_samples(path) - count) <= 1200  # two frames of MPEG
    assert abs(stated_seconds(path) * 16000 - num_samples(path)) <= 1
    assert all(note.startswith(f"{path}: ") and "\n" not in note for note in reading.notes)
    return count * rate / 16000, reading.notes


def assert_reads(path, content, expected, samples=SAMPLES, rate=16000, few=0):
    """Reading `content` gives what the table says."""
    path.write_bytes(content)
    found = read(path, samples, rate)
    if expected is REFUSED:
        assert found[0] == REFUSED, found
        return found[2]
    assert found[0] != REFUSED, found[2]
    count, notes = found
    if expected is PART:
        assert count < samples and "truncation cannot be detected" in notes[0]
    else:
        whole = samples * (2 if expected is TWICE else 1)
        assert -1 <= count - whole + few * 0.5 <= 1 + few * 1.5 + 3 * (few == 0)
        assert bool(notes) == (expected is NOTED), notes
    return notes


def test_the_table_has_every_format():
    assert {*EXPECTED} == {*soundfile.available_formats()} - {"RAW", "SD2"}


@pytest.mark.parametrize(("form", "case", "expected"), CASES)
def test_all_or_nothing(tmp_path, form, case, expected):
    rate = RATES.get(form, 16000)
    content = MADE[case](form, encode(form, rate=rate))
    few = 2300 if form == "MP3" and case != "whole" else 0
    told = assert_reads(tmp_path / f"x.{form.lower()}", content, expected, rate=rate, few=few)
    if expected is REFUSED and not any(words in told for words in NO_LENGTHS_TOLD):
        assert (
            len(re.findall(r"\b\d+\b(?= (?:samples|bytes|of \d+)|: | \()|holds \d+", told)) >= 2
        ), told


NOT_WRITTEN = [  # by libsndfile, though it names them
    ("AIFF", "DWVW_12"), ("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II"),
    ("WAV", "MPEG_LAYER_III"),
]  # fmt: skip
SUBTYPES = [
    pytest.param(form, subtype, id=f"{form}-{subtype}")
    for form in EXPECTED
    for subtype in soundfile.available_subtypes(form)
    if (form, subtype) not in NOT_WRITTEN
]


@pytest.mark.parametrize(("form", "subtype"), SUBTYPES)
@pytest.mark.parametrize("share", [1.0, 0.95, 0.4])
def test_every_subtype_whole_and_cut(tmp_path, form, subtype, share):
    rate = RATES.get(form, 8000 if subtype.startswith("NMS") else 16000)
    content = encode(form, subtype, rate=rate)
    path = tmp_path / f"x.{form.lower()}"
    if share == 1.0:
        path.write_bytes(content)
        count, _ = read(path, rate=rate)
        slower = 16000 / 16129 if (form, subtype) == ("VOC", "PCM_U8") else 1.0  # its rates are few
        assert -1 <= count - SAMPLES * slower <= 2304  # whole blocks and frames
        return
    path.write_bytes(content[: round(len(content) * share)])
    found = read(path, rate=rate)
    if EXPECTED[form] is NO_LENGTH:
        assert found[0] == REFUSED or "truncation cannot be detected" in found[1][0]
    else:
        assert found[0] == REFUSED, found
