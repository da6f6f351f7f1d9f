"""The reader of the game's data file, on a small file with every kind of script."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "egs/mini/local")]

from mini_queen import Game, VoiceLine, read_script, split_line  # noqa: E402

from pam.errors import PamError  # noqa: E402

HEADER = bytes(20)
RATE = 11025


def text(words: str, align: int, at: int) -> bytes:
    """A string with its length, padded so that what follows it is aligned."""
    raw = bytes([len(words)]) + words.encode("cp437")
    return raw + bytes(-(at + len(raw)) % align) if words else b"\0"


def dialogue() -> bytes:
    """Talk 7: Bob says a line in two voices, Joe answers; nobody greets."""
    joe_at = 32 + 96
    joe_lines = struct.pack(">hh", 0, 0x2A)  # the key, which is not 0, says: no greeting
    joe_lines += text("Fine.", 4, joe_at + 4)
    other_at = joe_at + len(joe_lines)
    other = struct.pack(">hh", 0, 0x2A)
    other += text("Hi there*05how are you?", 4, other_at + 4)
    again_at = other_at + len(other)
    again = text("You again", 2, again_at)
    again += text("", 2, again_at + len(again))
    head = [0] * 16
    head[0], head[2], head[3], head[4] = 1, 7, 1, 1
    head[11], head[13] = other_at, again_at
    data = struct.pack(">16h", *head) + bytes(96) + joe_lines + other + again
    return HEADER + data


SPARKY, BOB, HIDDEN = 1, 2, 3  # objects


def cut_scene(missing: int = 0) -> bytes:
    """Joe says nothing, Sparky (animated) and Bob say a line, then a hidden Sparky and nobody."""
    plain = [0] * 16
    animated = [*plain[:4], 1, *plain[5:]]
    frames = [*range(10), *range(10), -2]
    steps = [0, *plain, 2, -1, 7, SPARKY, *animated, 0, *frames]
    for actor in (BOB, HIDDEN, -3):
        steps += [actor, *plain, 0]
    steps = struct.pack(f">{len(steps) + 1}h", *steps, 0)[missing:]
    at = 12 + len(steps)
    body = text("intro", 2, at)
    for line in ("*", "It is dark here*01Joe?", "It is", "Is it?", "Later"):
        body += text(line, 2, at + len(body))
    return HEADER + struct.pack(">hhhHHh", 0, -5, 0, at, at, 0) + steps + body


def mp3(seconds: float) -> bytes:
    out = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(round(seconds * RATE)) * 0.2)
    soundfile.write(out, tone, RATE, format="MP3")
    return out.getvalue()


def game_file(path: Path, voices: list[str], compression: int = 1, missing: int = 0) -> Path:
    resources = {f"{voice}.SB": mp3(1.5) for voice in voices}
    resources["BOB1.DOG"], resources["C1A.CUT"] = dialogue(), cut_scene(missing)
    replies = [f"reply {i}" for i in range(40)]
    lines = ["It's a door", "Sparky", "Trader Bob", *["-"] * 12, *replies]
    resources["QUEEN2.JAS"] = "\r\n".join(lines).encode()
    objects = [struct.pack(">8h", name, *[0] * 7) for name in (1, 2, -1)]
    resources["QUEEN.JAS"] = HEADER + struct.pack(">4H", 0, 2, 3, 1) + b"".join(objects)
    head = b"QTBL" + bytes(8) + bytes([compression]) + struct.pack(">H", len(resources))
    at, table, blob = len(head) + 21 * len(resources), b"", b""
    for name, content in resources.items():
        table += name.encode().ljust(12, b"\0") + b"\1" + struct.pack(">II", at, len(content))
        at, blob = at + len(content), blob + content
    path.write_bytes(head + table + blob)
    return path


CUT = ["C1A__021", "C1A__022", "C1A__031", "C1A__041", "C1A__051"]
VOICES = ["07002AP1", "07002AP2", "07002AJ1", "07XXXXP1", *CUT, "JOE00411", "JOE00051"]


def test_every_kind_of_script_is_read(tmp_path):
    script = read_script(Game(game_file(tmp_path / "queen.1c", VOICES)))
    assert script == [
        VoiceLine("07002AJ1", "Fine.", "JOE"),
        VoiceLine("07002AP1", "Hi there", "BOB"),
        VoiceLine("07002AP2", "how are you?", "BOB"),
        VoiceLine("07XXXXP1", "You again", "BOB"),
        VoiceLine("C1A__021", "It is dark here", "SPARKY"),
        VoiceLine("C1A__022", "Joe?", "SPARKY"),
        VoiceLine("C1A__031", "It is", "CUT"),  # Bob is not heard in training
        VoiceLine("C1A__041", "Is it?", "SPARKY"),
        VoiceLine("C1A__051", "Later", "CUT"),
        VoiceLine("JOE00051", "reply 4", "JOE"),
        VoiceLine("JOE00411", "It's a door", "JOE"),
    ]


def test_a_line_without_a_voice_is_left_out(tmp_path):
    script = read_script(Game(game_file(tmp_path / "queen.1c", ["07002AP2"])))
    assert [line.id for line in script] == ["07002AP2"]


def test_a_cut_scene_with_other_steps_is_refused(tmp_path):
    game = Game(game_file(tmp_path / "queen.1c", CUT, missing=2))
    with pytest.raises(PamError, match=r"C1A\.CUT: its steps do not fill"):
        read_script(game)


def test_a_voice_is_16_khz(tmp_path):
    game = Game(game_file(tmp_path / "queen.1c", ["07002AP1"]))
    samples = game.audio("07002AP1")
    assert samples.dtype == np.float32
    assert len(samples) / 16000 == pytest.approx(game.seconds("07002AP1"), abs=0.001)
    assert game.seconds("07002AP1") == pytest.approx(1.5, abs=0.15)  # MP3 pads to whole frames
    spectrum = np.abs(np.fft.rfft(samples[4000:12000]))
    assert np.argmax(spectrum) * 2 == pytest.approx(0.2 * RATE / (2 * np.pi), abs=4)


@pytest.mark.parametrize("content", [b"PK\3\4" + bytes(40), b"QTBL" + bytes(40)])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "queen.1c"
    path.write_bytes(content)
    with pytest.raises(PamError, match="MP3 voices"):
        Game(path)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("one", ["one"]),
        ("one*05two", ["one", "two"]),
        ("one*05", ["one"]),
        ("*05two", ["", "two"]),
        ("one*XY00000000000two", ["one", "two"]),
        ("a*00*01b", ["a", "", "b"]),
        ("", []),
    ],
)
def test_commands_split_a_line(line, parts):
    assert split_line(line) == parts
