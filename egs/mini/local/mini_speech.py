"""The usable voice lines of the game with their words, split by character."""

import functools
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from mini_queen import CUT_SCENE, VoiceLine, open_game, read_script

from tools.fetch_corpora import unpacked

PACKAGE = "flight-of-the-amazon-queen"
GAME_FILE = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"
NOTICES = f"usr/share/doc/{PACKAGE}/"  # the licence asks to keep them with the game

# What the script and the voice agree on: bounds of a usable line.
MIN_SECONDS, LONGEST_SECONDS = 1.0, 20.0
EVALUATION_SECONDS = 8.0  # of a single line in dev and test
MIN_WORDS, MIN_CHARACTERS_A_SECOND, MAX_CHARACTERS_A_SECOND = 2, 4.0, 25.0

# Who lent a character the voice, as the game's own credits (CREDIT2.CRD) say. Not here: who is not
# in the credits under that name (TAM, ORACLE, LARIS, MAN), and who has two actors (KLUNK, LOLA).
ACTORS = {
    "lavelle": ("JOE",),
    "hill": ("SPARKY", "JIM", "APE", "WEDGE", "DOG"),
    "hootkins": ("FRANK", "BUD", "JOHN", "CHEF"),
    "reitel": ("AND", "HENRY", "DEATH"),
    "martin": ("NAOMI", "SEC", "ZOMBIE"),
    "arnold": ("PRIN", "SHOWERAM"),
    "coleman": ("BOB",),
    "james": ("IAN", "CHIEF"),
    "valdez": ("FAYE",),
    "reagan": ("LOU", "WITCH"),
}
ACTOR_OF = {character: actor for actor, cast in ACTORS.items() for character in cast}

SPLITS = {"dev": ("BOB", "IAN", "CHIEF"), "test": ("FAYE", "LOU", "WITCH")}
# Never used for training: lines of cut-scenes whose character is not certain, or occurs in dev or
# test; one of Lola's two actors is a test actor, and so may be Tam's, who is not in the credits.
LEFT_OUT = (CUT_SCENE, "LOLA", "TAM")

GLYPHS = re.compile(r"\^_|@@")  # the game's font has a trade mark sign and a heart there
UNSPOKEN = re.compile(r"[0-9()<>\[\]*_&#$%/@^+=]")  # numbers, stage directions, symbols


@dataclass(frozen=True)
class Speech:
    """A usable voice line with its text as it is spoken, lower case."""

    voice: str
    text: str
    character: str
    seconds: float

    @property
    def actor(self) -> str | None:
        return ACTOR_OF.get(self.character)

    @property
    def person(self) -> str:
        """The actor, or where the credits do not say the character."""
        return self.actor or self.character


def spoken_text(line: str) -> str | None:
    """The words of a script line as lower-case a–z and apostrophes.

    None where the line does not say what is spoken: numbers (nineteen forty or one thousand …),
    symbols, stage directions such as (sigh) or <koff>.
    """
    line = GLYPHS.sub(" ", line)
    if UNSPOKEN.search(line):
        return None
    words = re.sub(r"[^a-z' ]", " ", line.lower()).split()
    return " ".join(word for word in words if word.strip("'")) or None


def is_usable(line: VoiceLine, seconds: float, longest: float = LONGEST_SECONDS) -> bool:
    """Long enough, and spoken at a speed that says that text and voice belong together."""
    return (
        MIN_SECONDS <= seconds <= longest
        and len(line.text.split()) >= MIN_WORDS
        and MIN_CHARACTERS_A_SECOND <= len(line.text) / seconds <= MAX_CHARACTERS_A_SECOND
    )


def split_of(character: str) -> str | None:
    """train, dev or test; None for what is left out."""
    if character in LEFT_OUT:
        return None
    return next((split for split, cast in SPLITS.items() if character in cast), "train")


def game_path() -> str:
    wanted = (GAME_FILE, NOTICES)
    return str(unpacked(PACKAGE, lambda path: path.startswith(wanted)) / GAME_FILE)


@functools.cache
def all_speech() -> tuple[Speech, ...]:
    """Every usable line of up to 20 s whose words are certain, sorted by voice."""
    game = open_game(game_path())
    found = []
    for line in read_script(game):
        seconds, text = game.seconds(line.id), spoken_text(line.text)
        if text and is_usable(line, seconds):
            found.append(Speech(line.id, text, line.character, seconds))
    return tuple(found)


def speech_of(split: str, max_seconds: float) -> list[Speech]:
    """The lines of a split's characters, no longer than `max_seconds`."""
    return [s for s in all_speech() if s.seconds <= max_seconds and split_of(s.character) == split]


def voice_audio(voice: str, speed: float = 1.0) -> Float[np.ndarray, " N"]:
    return open_game(game_path()).audio(voice, speed)
