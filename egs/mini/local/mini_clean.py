"""asr_clean: utterances of the game; the speaker of an utterance is its character."""

import numpy as np
from jaxtyping import Float
from mini_items import Item, choose, rng_for
from mini_lines import Utterance, long_utterances, render_utterance, single, training_utterances
from mini_speech import EVALUATION_SECONDS, LONGEST_SECONDS, speech_of


def clean_items(
    split: str, count: int | None, max_seconds: float, perturb: bool, seed: int
) -> list[Item]:
    """asr_clean_SPLIT. train joins lines, test_long consists of joined ones, others are lines."""
    utterances = clean_utterances(
        split, max_seconds, perturb, rng_for(seed, "asr_clean", split, "lines")
    )
    return [
        Item(
            u.id("long" if split == "test_long" else ""),
            u.character,
            u.text,
            u,
            sources=(u.person,),
        )
        for u in choose(utterances, count, rng_for(seed, "asr_clean", split))
    ]


def clean_utterances(
    split: str, max_seconds: float, perturb: bool, rng: np.random.Generator
) -> list[Utterance]:
    if split == "train":
        return training_utterances(speech_of(split, max_seconds), max_seconds, perturb, rng)
    if split == "test_long":
        return long_utterances(speech_of("test", LONGEST_SECONDS), rng)
    return [single(line) for line in speech_of(split, EVALUATION_SECONDS)]


def render_clean(item: Item) -> Float[np.ndarray, " N"]:
    return render_utterance(item.recipe)
