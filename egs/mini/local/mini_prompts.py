"""asr_clean_test_other: prompts of a telephone exchange, by a person who is in no other set.

Nothing of this source is trained on or used to choose a model, so the set measures what a model of
the game's voices does with another speaker, another text and another channel (8 kHz).
"""

import gzip
import re
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from mini_items import Item, choose, rng_for
from mini_queen import VoiceLine
from mini_speech import is_usable, spoken_text

from pam.data.audio import load_audio
from tools.fetch_corpora import unpacked

AUDIO, TEXTS = "asterisk-core-sounds-en-wav", "asterisk-core-sounds-en"
VOICES = "usr/share/asterisk/sounds/en_US_f_Allison/"
TEXT_FILE = f"usr/share/doc/{TEXTS}/core-sounds-en.txt.gz"
SPEAKER = "ALLISON"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOT_AS_WRITTEN = ("demo-moreinfo",)  # an address of the web, spoken with "dot"


def prompt_items(count: int | None, seed: int) -> list[Item]:
    """`count` of the usable prompts; all of one speaker, so one cluster."""
    prompts = choose(read_prompts(), count, rng_for(seed, "asr_clean", "test_other"))
    return [
        Item(f"{SPEAKER}-{p.id.replace('/', '-')}", SPEAKER, p.text, p.id, sources=(SPEAKER,))
        for p in prompts
    ]


def render_prompt(item: Item) -> Float[np.ndarray, " N"]:
    return load_audio(_voices_folder() / f"{item.recipe}.wav")


def read_prompts() -> list[VoiceLine]:
    """The usable prompts with their text as it is spoken, sorted by name."""
    prompts = []
    for name, text in sorted(_texts().items()):
        path, spoken = _voices_folder() / f"{name}.wav", spoken_text(with_digits_as_words(text))
        if spoken and path.is_file() and name not in NOT_AS_WRITTEN:
            line = VoiceLine(name, spoken, SPEAKER)
            if is_usable(line, soundfile.info(path).duration):
                prompts.append(line)
    return prompts


def with_digits_as_words(text: str) -> str:
    """ "press 1" is spoken "press one"; longer numbers can be read in more than one way."""
    return re.sub(r"(?<![\w.])\d(?!\w|\.\w)", lambda digit: DIGITS[int(digit[0])], text)


def _texts() -> dict[str, str]:
    """Name of a prompt → its text."""
    folder = unpacked(TEXTS, lambda path: path.startswith(f"usr/share/doc/{TEXTS}/"))
    lines = gzip.decompress((folder / TEXT_FILE).read_bytes()).decode("utf-8").splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line and not line.startswith(";"))
    return {name: text.strip() for name, _, text in pairs}


def _voices_folder() -> Path:
    wanted = (VOICES, f"usr/share/doc/{AUDIO}/copyright")
    return unpacked(AUDIO, lambda path: path.startswith(wanted)) / VOICES
