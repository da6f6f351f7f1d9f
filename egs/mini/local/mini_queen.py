"""The voices of "Flight of the Amazon Queen" with their script, out of the game's one data file.

The file (`queen.1c`, made by ScummVM's compression tool) is a table of named resources: voices
(NAME.SB, MP3 at 11,025 Hz), dialogues (.DOG), cut-scenes (.CUT) and two texts (.JAS). A line of
the script is spoken in several voice files: `*` and two characters (a pause or a gesture) end one.
The name of a voice says where its text is: dialogue, answer and number of the part. Who speaks in a
cut-scene is an object of the game, by its number in QUEEN.JAS; the texts hold the objects' names.
"""

import functools
import io
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from pam.errors import PamError
from pam.rate import SAMPLE_RATE

MAGIC, MP3 = b"QTBL", 1
TABLE_AT, ENTRY_BYTES, NAME_BYTES = 15, 21, 12
HEADER_BYTES = 20  # before the content of .DOG, .CUT and QUEEN.JAS
PLAYER, CUT_SCENE = "JOE", "CUT"
PLAYER_OBJECT = 0
# A step of a cut-scene, in numbers of 16 bits: the step itself (the first number is who acts, the
# sixth says that frames of an animation follow), a list with its length, the frames and their end.
STEPS_AT, STEP, ANIMATED, FRAME, LAST_FRAME = 12, 17, 5, 10, -2
# Names of objects → characters as the dialogues call them, of those in the training set. Others
# (dev and test characters, and who is seldom named) stay `CUT_SCENE`.
OBJECT_CHARACTERS = {
    "Anderson": "AND",
    "azura obj": "PRIN",
    "Bud": "BUD",
    "chef": "CHEF",
    "Frank": "FRANK",
    "Henry": "HENRY",
    "Jimmy": "JIM",
    "Joe King": PLAYER,
    "John": "JOHN",
    "Klunk": "KLUNK",
    "Naomi": "NAOMI",
    "Princess Azura": "PRIN",
    "secretary": "SEC",
    "showering Amazon": "SHOWERAM",
    "Sparky": "SPARKY",
    "zombie woman": "ZOMBIE",
}
OBJECTS_AT, OBJECT_BYTES = HEADER_BYTES + 8, 16
COMMAND_CHARACTERS, MOVE_CHARACTERS = 2, 13  # what follows a `*`; "XY" moves somebody


@dataclass(frozen=True)
class VoiceLine:
    """One voice file: its name without .SB, the script's words, and who says them."""

    id: str
    text: str
    character: str


class Game:
    """The resources of a `queen.1c` by name; `PamError` where it is another kind of file."""

    def __init__(self, path: str | Path):
        with Path(path).open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.data[:4] != MAGIC or self.data[NAME_BYTES] != MP3:
            raise PamError(f"{path}: not a queen.1c with MP3 voices: remove it and run again")
        self.index = dict(self._entries())

    def _entries(self) -> Iterator[tuple[str, tuple[int, int]]]:
        (count,) = struct.unpack_from(">H", self.data, TABLE_AT - 2)
        for i in range(count):
            at = TABLE_AT + ENTRY_BYTES * i
            name = self.data[at : at + NAME_BYTES].split(b"\0")[0].decode("latin1")
            yield name, struct.unpack_from(">II", self.data, at + NAME_BYTES + 1)

    def resource(self, name: str) -> bytes:
        start, size = self.index[name]
        return self.data[start : start + size]

    def seconds(self, voice: str) -> float:
        """By decoding: an MP3 header is wrong by up to 46 ms."""
        samples, rate = self._decoded(voice)
        return len(samples) / rate

    def audio(self, voice: str, speed: float = 1.0) -> Float[np.ndarray, " N"]:
        """A voice at 16 kHz (its content ends at 5.5 kHz); `speed` changes its pitch as well."""
        samples, rate = self._decoded(voice)
        return soxr.resample(samples, rate * speed, SAMPLE_RATE).astype(np.float32, copy=False)

    def _decoded(self, voice: str) -> tuple[Float[np.ndarray, " N"], int]:
        return soundfile.read(io.BytesIO(self.resource(f"{voice}.SB")), dtype="float32")


@functools.cache
def open_game(path: str) -> Game:
    """The game, opened once in a process."""
    return Game(path)


def split_line(line: str) -> list[str]:
    """The parts of a line that are spoken in voice files of their own, commands taken out."""
    parts, start, at = [], 0, line.find("*")
    while at >= 0:
        parts.append(line[start:at])
        is_move = line[at + 1 : at + 3] == "XY"
        start = at + 1 + (MOVE_CHARACTERS if is_move else COMMAND_CHARACTERS)
        at = line.find("*", start)
    return parts + ([line[start:]] if start < len(line) else [])


def read_script(game: Game) -> list[VoiceLine]:
    """Every voice that has words in the script, sorted by id."""
    found: dict[str, VoiceLine] = {}
    for prefix, line, character in _script_lines(game):
        for number, part in enumerate(split_line(line), start=1):
            voice = f"{prefix.upper()}{number:X}".replace(" ", "0")
            if f"{voice}.SB" in game.index and part.strip() and voice not in found:
                found[voice] = VoiceLine(voice, " ".join(part.split()), character)
    return [found[voice] for voice in sorted(found)]


def _script_lines(game: Game) -> Iterator[tuple[str, str, str]]:
    """(start of the voice's name, line, character)."""
    cast = _cast(game)
    for name in sorted(game.index):
        stem, _, extension = name.rpartition(".")
        if extension == "DOG":
            yield from _dialogue(
                game.resource(name)[HEADER_BYTES:], re.sub(r"\d+[A-Z]?$", "", stem)
            )
        elif extension == "CUT":
            yield from _cut_scene(game.resource(name)[HEADER_BYTES:], stem, cast)
    yield from _descriptions(game)


class _Cursor:
    """Reads big-endian numbers and length-prefixed strings that end at aligned offsets."""

    def __init__(self, data: bytes, at: int):
        self.data, self.at = data, at

    def number(self, code: str = "h") -> int:
        (value,) = struct.unpack_from(f">{code}", self.data, self.at)
        self.at += 2
        return value

    def string(self, align: int = 2) -> str:
        length, start = self.data[self.at], self.at + 1
        end = start + length
        self.at = -(-end // align) * align if length else start
        return self.data[start:end].decode("cp437")


def _dialogue(data: bytes, other: str) -> Iterator[tuple[str, str, str]]:
    """What the other person (P) and Joe (J) say; offsets of the parts stand in the header."""
    header = struct.unpack_from(">14h", data, 0)
    levels, talk, joe_count, other_count = abs(header[0]), header[2], header[3], header[4]
    other_at, again_at, joe_at = header[11] & 0xFFFF, header[13] & 0xFFFF, 32 + levels * 96
    greeting = _Cursor(data, joe_at + 2)
    if not greeting.number("H"):
        yield f"{talk:2d}SSSSJ", greeting.string(), PLAYER
    again = _Cursor(data, again_at)
    yield f"{talk:2d}XXXXP", again.string(), other
    yield f"{talk:2d}XXXXJ", again.string(), PLAYER
    for at, count, letter in ((other_at, other_count, "P"), (joe_at, joe_count, "J")):
        cursor = _Cursor(data, at)
        for _ in range(count):
            cursor.at += 2
            key = cursor.number("H")
            yield (
                f"{talk:2d}{key:4x}{letter}",
                cursor.string(align=4),
                PLAYER if letter == "J" else other,
            )


def _cut_scene(data: bytes, name: str, cast: dict[int, str]) -> Iterator[tuple[str, str, str]]:
    """A line may go with each step; `cast` says which object is which character."""
    cursor = _Cursor(data, struct.unpack_from(">H", data, 8)[0])
    cursor.string()
    for number, actor in enumerate(_actors(data, name), start=1):
        line = cursor.string()
        if line and line != "*":
            yield f"{name.ljust(5, '_')}{number:02d}", line, cast.get(actor, CUT_SCENE)


def _actors(data: bytes, name: str) -> list[int]:
    """The object that acts in each step."""
    count, end = abs(struct.unpack_from(">h", data, 2)[0]), struct.unpack_from(">H", data, 6)[0]
    numbers = struct.unpack_from(f">{(end - STEPS_AT) // 2}h", data, STEPS_AT)
    actors, at = [], 0
    try:
        for _ in range(count):
            actors.append(numbers[at])
            animated = numbers[at + ANIMATED] != 0
            at += STEP + 1 + numbers[at + STEP]
            while animated and numbers[at] != LAST_FRAME:
                at += FRAME
            at += animated
    except IndexError:
        at = None
    if at != len(numbers) - 1:  # one number follows the last step
        raise PamError(f"{name}.CUT: its steps do not fill their place: is it another edition?")
    return actors


def _cast(game: Game) -> dict[int, str]:
    """Object number → character."""
    jas = game.resource("QUEEN.JAS")
    _, _, objects, descriptions = struct.unpack_from(">4H", jas, HEADER_BYTES)
    names = game.resource("QUEEN2.JAS").decode("cp437").split("\r\n")[descriptions:]
    cast = {PLAYER_OBJECT: PLAYER}
    for number in range(1, objects + 1):
        at = OBJECTS_AT + OBJECT_BYTES * (number - 1)
        name = abs(struct.unpack_from(">h", jas, at)[0])  # negative: the object is hidden
        if name and names[name - 1] in OBJECT_CHARACTERS:
            cast[number] = OBJECT_CHARACTERS[names[name - 1]]
    return cast


def _descriptions(game: Game) -> Iterator[tuple[str, str, str]]:
    """Joe about what he sees: QUEEN2.JAS holds the lines, QUEEN.JAS how many of each kind."""
    lines = game.resource("QUEEN2.JAS").decode("cp437").split("\r\n")
    rooms, names, _, count = struct.unpack_from(">4H", game.resource("QUEEN.JAS"), HEADER_BYTES)
    for i in range(count):
        yield f"JOE{i + 41:04d}", lines[i], PLAYER
    replies_at = count + names + rooms + 12
    for i in range(40):
        yield f"JOE{i + 1:04d}", lines[replies_at + i], PLAYER
