"""asr_noisy: the game's voices in simulated rooms, with others talking and noises around.

The bank of rooms and all draws depend on the seed only; each split has its own rooms, talkers and
noises. The signal-to-noise ratio is that of the reverberant speech to all of the noise.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from mini_items import Item, choose, rng_for
from mini_lines import Utterance, single, training_utterances, utterance_audio
from mini_mix import LEVEL_DB, at_level, looped, mix_at_snr
from mini_sounds import sound_files
from mini_speech import EVALUATION_SECONDS, Speech, speech_of, voice_audio
from scipy.signal import fftconvolve

from pam.data.audio import load_audio
from pam.rate import SAMPLE_RATE

ROOMS = {"train": 40, "dev": 10, "test": 10}
ROOM_METRES = ((3.0, 9.0), (3.0, 7.0), (2.4, 3.5))
WALL_METRES = 0.4  # nobody is nearer to a wall
REVERBERATION_SECONDS = (0.15, 0.6)
SOURCES = 3  # in each room: the speaker, the other talkers, the noise
MAX_REFLECTIONS = 14
RESPONSE_SECONDS = 0.5

SNR_DB = (0.0, 20.0)
TALKERS = (2, 5)
BABBLE_OVER_AMBIENCE_DB = (-6.0, 6.0)
KINDS = {"babble": 0.3, "ambience": 0.3, "both": 0.4}

# Four-second scenes of lincity-ng, by name; none of them is a labelled sound of the captions.
AMBIENCE = {
    "train": (
        *("Commune", "MarketEmpty", "MarketFull", "MarketLow", "MarketMed", "ResidentialHigh"),
        *("ResidentialMed", "ResidentialLow", "Shanty", "Farm", "CoalMine", "Monument", "Harbor"),
    ),
    "dev": ("School", "Mill", "Recycle"),
    "test": ("University", "OreMine", "OrganicFarm", "Health", "Tip"),
}


@dataclass(frozen=True)
class NoisyRecipe:
    """What an utterance is made of; `snr_db` holds exactly, `room` is an index into the bank."""

    speech: Utterance
    split: str
    seed: int
    room: int
    kind: str
    talkers: tuple[str, ...]
    ambience: str
    snr_db: float
    babble_db: float
    offset: int


def noisy_items(
    split: str, count: int | None, max_seconds: float, perturb: bool, seed: int
) -> list[Item]:
    """asr_noisy_SPLIT: drawn from the same lines as asr_clean_SPLIT, in training joined anew."""
    longest = max_seconds if split == "train" else EVALUATION_SECONDS
    pool = speech_of(split, longest)
    utterances = [single(line) for line in pool]
    if split == "train":
        rng = rng_for(seed, "asr_noisy", split, "lines")
        utterances = training_utterances(pool, longest, perturb, rng)
    chosen = choose(utterances, count, rng_for(seed, "asr_noisy", split))
    return [_item(utterance, pool, split, seed) for utterance in chosen]


def _item(speech: Utterance, pool: Sequence[Speech], split: str, seed: int) -> Item:
    rng = rng_for(seed, "asr_noisy", split, speech.voices[0])
    others = [s.voice for s in pool if s.character != speech.character]
    recipe = NoisyRecipe(
        speech=speech,
        split=split,
        seed=seed,
        room=int(rng.integers(ROOMS[split])),
        kind=str(rng.choice(list(KINDS), p=list(KINDS.values()))),
        talkers=tuple(rng.choice(others, rng.integers(TALKERS[0], TALKERS[1] + 1), replace=False)),
        ambience=str(rng.choice(ambience_clips(split))),
        snr_db=round(float(rng.uniform(*SNR_DB)), 2),
        babble_db=round(float(rng.uniform(*BABBLE_OVER_AMBIENCE_DB)), 2),
        offset=int(rng.integers(SAMPLE_RATE * 60)),
    )
    who, text = speech.character, speech.text
    return Item(speech.id("noisy"), who, text, recipe, sources=(speech.person,))


@functools.cache
def ambience_clips(split: str) -> tuple[str, ...]:
    """Clips of the scenes of a split: a scene's name and a number."""
    names = [name for name in sound_files() if name.startswith("lincity:")]
    return tuple(
        name for name in names if name.split(":")[1].rstrip("0123456789") in AMBIENCE[split]
    )


@functools.lru_cache(maxsize=256)
def _ambience_audio(clip: str) -> Float[np.ndarray, " N"]:
    return load_audio(_sound_files()[clip])


@functools.cache
def _sound_files():
    return sound_files()


def render_noisy(item: Item) -> Float[np.ndarray, " N"]:
    recipe: NoisyRecipe = item.recipe
    rooms = room_bank(recipe.split, recipe.seed)[recipe.room]
    speech = reverberant(utterance_audio(recipe.speech), rooms[0])
    noise = noise_of(recipe, rooms, len(speech))
    mixed = mix_at_snr(speech, noise, recipe.snr_db)
    return at_level(mixed, LEVEL_DB + recipe.speech.gain_db)


def noise_of(
    recipe: NoisyRecipe, rooms: Float[np.ndarray, "3 R"], length: int
) -> Float[np.ndarray, " N"]:
    babble = sum(
        at_level(reverberant(looped(voice_audio(v), length, recipe.offset), rooms[1]))
        for v in recipe.talkers
    )
    ambience = ambience_in_room(recipe.ambience, rooms, length, recipe.offset)
    if recipe.kind == "both":
        return mix_at_snr(babble, ambience, recipe.babble_db)
    return babble if recipe.kind == "babble" else ambience


def ambience_in_room(
    clip: str, rooms: Float[np.ndarray, "3 R"], length: int, offset: int
) -> Float[np.ndarray, " N"]:
    """`length` samples of a scene at the microphone, from `offset` on."""
    return reverberant(looped(_ambience_audio(clip), length, offset), rooms[2])


def reverberant(
    samples: Float[np.ndarray, " N"], response: Float[np.ndarray, " R"]
) -> Float[np.ndarray, " N"]:
    """The signal at the microphone, as long as the source and in time with it."""
    return fftconvolve(samples, response)[: len(samples)].astype(np.float32)


@functools.cache
def room_bank(split: str, seed: int) -> Float[np.ndarray, "rooms 3 R"]:
    """Room impulse responses, each from its direct sound on, for three sources in every room."""
    return np.stack([_room(rng_for(seed, "room", split, str(i))) for i in range(ROOMS[split])])


def _room(rng: np.random.Generator) -> Float[np.ndarray, "3 R"]:
    import pyroomacoustics

    pyroomacoustics.constants.set("num_threads", 1)  # sums in one order: the same bytes
    size = np.array([rng.uniform(*bounds) for bounds in ROOM_METRES])
    absorption, order = pyroomacoustics.inverse_sabine(rng.uniform(*REVERBERATION_SECONDS), size)
    room = pyroomacoustics.ShoeBox(
        size,
        fs=SAMPLE_RATE,
        materials=pyroomacoustics.Material(absorption),
        max_order=min(order, MAX_REFLECTIONS),
    )
    room.add_microphone(_place(size, rng))
    for _ in range(SOURCES):
        room.add_source(_place(size, rng))
    room.compute_rir()
    return np.stack([_from_direct_sound(response) for response in room.rir[0]])


def _place(size: Float[np.ndarray, "3"], rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    return rng.uniform(WALL_METRES, size - WALL_METRES)


def _from_direct_sound(response: Float[np.ndarray, " R"]) -> Float[np.ndarray, " K"]:
    """Without the time of flight, so that speech and text stay in time; unit energy."""
    first = int(np.argmax(np.abs(response) > 0.5 * np.abs(response).max()))
    length = round(RESPONSE_SECONDS * SAMPLE_RATE)
    out = np.zeros(length, np.float32)
    part = response[first : first + length]
    out[: len(part)] = part
    return out / np.sqrt(np.square(out).sum())
