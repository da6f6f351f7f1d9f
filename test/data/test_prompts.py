"""The shipped prompts keep their promises; broken prompt files are refused; draws are stable."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from pam.config import read_experiment
from pam.data.prompts import (
    Prompts,
    banks_of,
    draw,
    forms,
    load_all_prompts,
    load_prompts,
    normalise,
    prompts_of,
)
from pam.data.tasks import TASKS
from pam.errors import PamError
from pam.paths import CONF

MAX_JACCARD = 0.6  # shared words / all words of two prompts; the closest two have 0.58
CUES = {  # word stems, one of which says which of the two kinds of speech a prompt is about
    "asr_clean": r"clean|clear|\bread|quiet|studio|narrat|audiobook|dictat|articulated|distinct",
    "asr_noisy": r"nois|distan|\bfar\b|echo|reverb|meeting|conference|muffled|faint|loud|static"
    r"|hum\b|crackling|garbled|distorted|blurred|bad line|din\b|traffic|discussion",
}
FOREIGN = {  # those of them that must not occur in a prompt of the other task
    "asr_clean": r"clean|clear|quiet|studio|narrat|audiobook",
    "asr_noisy": r"nois|hiss|distan|\bfar\b|echo|reverb|meeting|static|muffled|crackl|garbled",
}
GOOD = {"train": ["Say it.", "Write it."], "unseen": ["Type it."]}


def write(folder: Path, task: str, train=GOOD["train"], unseen=GOOD["unseen"], head=None) -> Path:
    lines = [head if head is not None else f"task: {task}"]
    for split, texts in (("train", train), ("unseen", unseen)):
        lines += [f"{split}:", *(f"  - {text}" for text in texts)]
    path = folder / f"{task}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shipped() -> dict[str, Prompts]:
    return load_all_prompts(TASKS)  # a recipe of yours may have prompts of its own


def all_texts(shipped: dict[str, Prompts]) -> list[str]:
    return [text for split in shipped.values() for text in split.train + split.unseen]


def test_every_task_has_its_prompts(shipped):
    assert list(shipped) == list(TASKS)
    for prompts in shipped.values():
        assert (len(prompts.train), len(prompts.unseen)) == (50, 150)


def test_no_prompt_occurs_twice_whatever_the_case_and_punctuation(shipped):
    assert len({normalise(text) for text in all_texts(shipped)}) == 800


def test_no_two_prompts_are_near_duplicates(shipped):
    words = {text: frozenset(normalise(text).split()) for text in all_texts(shipped)}
    closest = max(
        (len(words[a] & words[b]) / len(words[a] | words[b]), a, b)
        for a, b in combinations(words, 2)
    )
    assert closest[0] < MAX_JACCARD, closest


def test_prompts_are_of_natural_length(shipped):
    odd = [text for text in all_texts(shipped) if not 4 <= len(text.split()) <= 25]
    assert odd == []


@pytest.mark.parametrize("task", TASKS)
def test_a_training_prompt_that_is_the_first_says_which_task_it_is(shipped, task):
    # Validation takes the first ones.
    cue = {"asr_clean": "clean", "asr_noisy": "noisy", "snv": "speakers", "ac": "audio"}[task]
    assert cue in shipped[task].train[0].lower()


@pytest.mark.parametrize("task", CUES)
def test_every_asr_prompt_says_how_the_speech_sounds_and_only_in_its_own_words(shipped, task):
    # Negations ("no noise", "unclear") count as the other task's words: they mislead a router.
    (other,) = CUES.keys() - {task}
    texts = shipped[task].train + shipped[task].unseen
    assert [text for text in texts if not re.search(CUES[task], text.lower())] == []
    assert [text for text in texts if re.search(FOREIGN[other], text.lower())] == []


@pytest.mark.parametrize(
    ("task", "cue"),
    [
        ("snv", r"speaker|voice|people|person|talk|speak|humans|individuals|participants|someth"),
        ("ac", r"describ|descript|caption|sound|scene|audio|recording|acoustic|hear|event"),
    ],
)
def test_every_other_prompt_names_what_it_asks_about(shipped, task, cue):
    texts = shipped[task].train + shipped[task].unseen
    assert [text for text in texts if not re.search(cue, text.lower())] == []


def test_draw_is_pinned():
    # The draw must not change between runs, machines or versions: decodings would not compare.
    numbers = Prompts(("0", "1", "2"), tuple(str(i) for i in range(150)))
    assert [draw(numbers, utt, 0) for utt in ("utt1", "utt2", "ä")] == ["75", "110", "130"]
    assert draw(numbers, "utt1", 1) == "18"
    assert draw(numbers, "utt1", 0, "seen") == draw(numbers, "utt1", 0, "train") == "0"


def test_every_prompt_can_be_drawn(shipped):
    prompts = shipped["snv"]
    utts = [f"utt{i}" for i in range(5000)]
    assert {draw(prompts, utt) for utt in utts} == set(prompts.unseen)
    assert {draw(prompts, utt, split="seen") for utt in utts} == set(prompts.train)
    assert {draw(prompts, utt, split="plain") for utt in utts} == set(prompts.plain)


def test_training_draws_long_own_and_shared_requests_alike_in_all_forms():
    prompts = Prompts(("A b.", "C d."), (), ("Own.", "X", "Z y"), shared={"X": frozenset("ts")})
    drawn = Counter(prompts.draw_train(number) for number in range(3 * 6 * 6))
    assert {text: 3 * 36 / count for text, count in drawn.items()} == {
        **dict.fromkeys([form for text in prompts.train for form in forms(text)], 3 * 2 * 3),
        **dict.fromkeys(forms("Own."), 3 * 2 * 3),
        **dict.fromkeys(forms("Z y"), 3 * 2 * 3),
        **dict.fromkeys(forms("X"), 3 * 2),
    }
    assert [Prompts(("a", "b"), ()).draw_train(n) for n in range(3)] == ["a", "b", "A"]


def test_every_training_prompt_is_drawn(shipped):
    prompts = shipped["asr_clean"]
    texts = prompts.train + prompts.plain_train
    numbers = np.random.default_rng(0).integers(2**63, size=100_000).tolist()
    drawn = {prompts.draw_train(number) for number in numbers}
    assert drawn == {form for text in texts for form in forms(text)}
    assert all(map(prompts.is_seen, list(drawn)[:100]))


def test_a_plain_request_has_three_forms():
    assert forms("Words, please!") == ("Words, please!", "words please", "WORDS, PLEASE!")
    assert forms("how many") == ("how many", "HOW MANY")


def test_plain_requests_are_short_and_in_one_pool_only(shipped):
    for prompts in shipped.values():
        assert len(prompts.plain_train) > 90 and len(prompts.plain) >= 50
        assert all(1 <= len(text.split()) <= 6 for text in prompts.plain_train + prompts.plain)
        known = {normalise(text) for text in prompts.plain_train + prompts.train + prompts.unseen}
        assert known.isdisjoint(normalise(text) for text in prompts.plain)


def test_requests_that_say_nothing_of_the_speech_are_both_speech_tasks(shipped):
    both = frozenset({"asr_clean", "asr_noisy"})
    for task in both:
        assert shipped[task].shared["Transcribe."] == shipped[task].shared["transcribe"] == both
        assert {"Transcribe.", "TRANSCRIBE."} <= set(shipped[task].plain)
        assert shipped[task].shared["What was said?"] == both
        assert "What was said?" in shipped[task].plain_train
        assert "Transcribe this meeting." not in shipped[task].shared
    assert not shipped["snv"].shared and not shipped["ac"].shared


def plain(folder: Path, text: str) -> Path:
    path = folder / "plain.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {ac: [Hear it., hear IT]}", "train, ac, 2 'hear IT': the same as"),
        ("train: {ac: [Say it]}", "train, ac, 1 'Say it': the same as"),
        ("train: {ac: [Hear it.]}\ntest: {ac: [HEAR IT]}", "test, ac, 1 'HEAR IT': the same as"),
        ("trian: {ac: [Hear it.]}", "unknown option 'trian': did you mean 'train'"),
        ("test: {acc: [Hear it.]}", "no task 'acc': did you mean 'ac'"),
        ("test: {ac: [12]}", "test, ac, 1 12: not a text"),
        ("test: {ac: Hear it.}", "test, ac: expected a list of requests"),
        ("test: [Hear it.]", "test: expected sections like 'ac:'"),
    ],
)
def test_a_broken_file_of_plain_requests_is_refused_with_its_place(tmp_path, text, message):
    write(tmp_path, "ac")
    path = plain(tmp_path, text)
    with pytest.raises(PamError) as error:
        load_all_prompts(folder=tmp_path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_plain_requests_of_a_folder(tmp_path):
    write(tmp_path, "ac")
    write(tmp_path, "snv", train=["Count."], unseen=["How many?"])
    plain(tmp_path, "train: {ac snv: [Hear it.], snv: [Number]}\ntest: {ac: [Sound]}")
    found = load_all_prompts(folder=tmp_path)
    assert found["snv"].plain_train == ("Hear it.", "Number")
    assert found["ac"].plain_train == ("Hear it.",)
    assert found["ac"].plain == ("Sound", "sound", "SOUND")
    assert set(found["ac"].shared) == {"Hear it.", "hear it", "HEAR IT."} and "plain" not in found
    assert found["ac"].is_seen("HEAR IT.") and not found["ac"].is_seen("Sound")
    with pytest.raises(PamError, match="has no plain requests"):
        draw(found["snv"], "utt1", split="plain")


def test_merged_asr_prompts_are_both_pools(shipped):
    merged = load_all_prompts(merge_asr_prompts=True)
    for split in ("train", "unseen"):
        both = shipped["asr_clean"].split(split) + shipped["asr_noisy"].split(split)
        assert merged["asr_clean"].split(split) == merged["asr_noisy"].split(split) == both
    assert merged["ac"] == shipped["ac"] == load_prompts("ac", merge_asr_prompts=True)


def test_prompts_of_a_configuration(shipped):
    config = {"tasks": ["ac", "asr_noisy"]}
    assert prompts_of(config) == {task: shipped[task] for task in config["tasks"]}
    assert prompts_of(config, ["snv"]) == {"snv": shipped["snv"]}
    merged = prompts_of(config | {"merge_asr_prompts": True})
    assert len(merged["asr_noisy"].train) == 2 * len(merged["ac"].train) == 100


def test_a_configuration_may_draw_long_prompts_alone_as_they_are_written(shipped):
    own = prompts_of({"tasks": ["asr_clean"], "plain_prompts": False})["asr_clean"]
    train = shipped["asr_clean"].train
    assert {own.draw_train(number) for number in range(2 * len(train))} == set(train)
    assert set(own.bank(500, seed=0)) == set(train)
    assert own.is_seen(train[0]) and not own.is_seen(train[0].upper())
    assert own.plain == shipped["asr_clean"].plain  # decoding still has them
    paper = read_experiment(CONF / "scale/paper.yaml", CONF / "systems/pam.yaml")
    assert paper.plain_prompts is False


def test_banks_of_a_configuration(shipped):
    config = {"tasks": ["snv", "ac"], "prompt_bank": 3}
    expected = {task: shipped[task].bank(3, seed=1) for task in ("snv", "ac")}
    assert banks_of(config, seed=1) == expected
    assert banks_of({"tasks": ["ac"]}, seed=1) == banks_of(config | {"prompt_bank": 0}, 1) == {}


def test_the_default_folder_is_the_repositorys():
    folder = Path(__file__).resolve().parents[2] / "conf" / "prompts"
    assert load_all_prompts(TASKS, folder) == load_all_prompts(TASKS)


def test_an_explicit_folder_wins(tmp_path):
    write(tmp_path, "ac")
    assert load_prompts("ac", tmp_path) == Prompts(("Say it.", "Write it."), ("Type it.",))
    assert list(load_all_prompts(folder=tmp_path)) == ["ac"]


BROKEN = {
    "empty split": ({"train": []}, "'train' is not a list"),
    "empty entry": ({"unseen": ['""']}, "unseen prompt 1 '': has no words"),
    "no words": ({"unseen": ['"?!"']}, "unseen prompt 1 '?!': has no words"),
    "a number": ({"train": ["Say it.", "12"]}, "train prompt 2 12: not a text"),
    "two lines": ({"train": ['"Say\\nit."']}, "train prompt 1 'Say\\nit.': write it in one line"),
    "edge space": ({"train": ['" Say it."']}, "one line, with single spaces"),
    "twice": ({"train": ["Say it.", "say IT!"]}, "train prompt 2 'say IT!': the same as"),
    "overlap": ({"unseen": ["Say it"]}, "unseen prompt 1 'Say it': the same as"),
    "other task": ({"head": "task: snv"}, "its task is 'snv': write 'task: ac'"),
    "unknown key": ({"head": "task: ac\ntrian: []"}, "unknown option 'trian': did you mean"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_place(tmp_path, name):
    change, message = BROKEN[name]
    path = write(tmp_path, "ac", **change)
    with pytest.raises(PamError) as error:
        load_prompts("ac", tmp_path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_prompt_of_two_tasks_is_refused(tmp_path):
    write(tmp_path, "ac")
    write(tmp_path, "snv", train=["Count."], unseen=["Type it!"])
    with pytest.raises(PamError, match=r"snv.yaml: unseen prompt 1 'Type it!': the same as .*ac"):
        load_all_prompts(folder=tmp_path)


def test_a_missing_file_or_folder_is_named(tmp_path):
    write(tmp_path, "asr_clean")
    with pytest.raises(PamError, match="no prompts for task 'asr_claen': did you mean 'asr_clean'"):
        load_prompts("asr_claen", tmp_path)
    with pytest.raises(PamError, match="no prompts: expected one file"):
        load_all_prompts(folder=tmp_path / "nowhere")


def test_an_unknown_pool_is_refused():
    with pytest.raises(PamError, match="prompts 'unsen': did you mean 'unseen'"):
        draw(Prompts(("a",), ("b",)), "utt1", split="unsen")
