"""Deterministic changes of prompts: typing errors, case, missing punctuation."""

import hashlib
import re
from collections.abc import Callable, Mapping

import numpy as np

WORD = re.compile(r"[^\W\d_]{4,}")  # an error in a shorter word may give another word
SLIPS: tuple[Callable[[str, int], str], ...] = (
    lambda word, i: word[:i] + word[i + 1] + word[i] + word[i + 2 :],  # two letters swapped
    lambda word, i: word[:i] + word[i + 1 :],  # one letter missing
    lambda word, i: word[:i] + word[i] + word[i:],  # one letter doubled
)


def typos(prompt: str, count: int, seed: int = 0) -> str:
    """`prompt` with `count` typing errors, each in a word of at least four letters.

    They depend only on the prompt and the seed. A prompt without such a word is unchanged.
    """
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    for _ in range(count):
        prompt = _slip(prompt, rng)
    return prompt


def _slip(prompt: str, rng: np.random.Generator) -> str:
    choices = {
        prompt[: word.start()] + slip(word[0], i) + prompt[word.end() :]
        for word in WORD.finditer(prompt)
        for slip in SLIPS
        for i in range(len(word[0]) - 1)
    } - {prompt}
    return sorted(choices)[rng.integers(len(choices))] if choices else prompt


def without_punctuation(prompt: str) -> str:
    return " ".join(re.sub(r"[^\w\s'’]", " ", prompt).split())


PERTURBATIONS: Mapping[str, Callable[[str, int], str]] = {
    "one typo": lambda prompt, seed: typos(prompt, 1, seed),
    "three typos": lambda prompt, seed: typos(prompt, 3, seed),
    "lower case": lambda prompt, seed: prompt.lower(),
    "upper case": lambda prompt, seed: prompt.upper(),
    "no punctuation": lambda prompt, seed: without_punctuation(prompt),
}
