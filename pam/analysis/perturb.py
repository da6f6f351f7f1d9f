"""Prompts as hasty people write them: typing errors, case, punctuation; the same every time."""

import hashlib
import re
from collections.abc import Callable, Mapping

import numpy as np

WORD = re.compile(r"[^\W\d_]{4,}")  # short words are spared: "is" without its i is another word
SLIPS: tuple[Callable[[str, int], str], ...] = (
    lambda word, i: word[:i] + word[i + 1] + word[i] + word[i + 2 :],  # two letters swapped
    lambda word, i: word[:i] + word[i + 1 :],  # one left out
    lambda word, i: word[:i] + word[i] + word[i:],  # one doubled
)


def typos(prompt: str, count: int, seed: int = 0) -> str:
    """`prompt` with `count` slips of the keyboard, each within a word of four letters or more.

    They depend on the prompt and the seed alone. A prompt without such a word stays as it is.
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
