"""The real mini corpora: counts, disjoint splits, and the same bytes for the same options."""

import dataclasses
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "egs/mini/local"
sys.path[:0] = [str(ROOT), str(LOCAL)]

import mini_noisy  # noqa: E402
import mini_prompts  # noqa: E402
import mini_real  # noqa: E402
import mini_speakers  # noqa: E402
import mini_speech  # noqa: E402
from mini_ac import _lines_of, most_frequent, sound_items  # noqa: E402
from mini_clean import clean_items, clean_utterances  # noqa: E402
from mini_items import clusters_of  # noqa: E402
from mini_lines import utterance_audio  # noqa: E402
from mini_mix import LEVEL_DB, power  # noqa: E402
from mini_noisy import ambience_clips, noise_of, noisy_items, reverberant, room_bank  # noqa: E402
from mini_queen import open_game, read_script  # noqa: E402
from mini_sounds import clip_audio, clip_paths, read_sounds  # noqa: E402

from pam.data.audio import load_audio  # noqa: E402
from pam.data.datadir import DataDir, validate  # noqa: E402

pytestmark = pytest.mark.corpora

SETS = {
    "asr_clean": ("train", "dev", "test", "test_long", "test_other"),
    "asr_noisy": ("train", "dev", "test"),
    "snv": ("train", "dev", "test", "test_real"),
    "ac": ("train", "dev", "test", "test_unseen"),
}
NAMES = [f"{task}_{part}" for task, parts in SETS.items() for part in parts]


def prepare(out: Path, *options: str) -> str:
    command = [sys.executable, str(LOCAL / "prepare.py"), "--out", str(out), "--size", "tiny"]
    result = subprocess.run([*command, *options], text=True, capture_output=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    return result.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(str(folder).encode(), b"OUT")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mini") / "data"
    prepare(out, "--nj", "2")
    return out


def test_the_script_gives_the_known_counts():
    game = open_game(mini_speech.game_path())
    lines = read_script(game)
    usable = [line for line in lines if mini_speech.is_usable(line, game.seconds(line.id))]
    assert (len(lines), len(usable)) == (6587, 5808)
    minutes = sum(game.seconds(line.id) for line in usable) / 60
    assert minutes == pytest.approx(257.4, abs=0.1)
    assert len(mini_speech.all_speech()) == 5789


def test_characters_actors_and_lines_of_the_splits_are_disjoint():
    parts = {part: mini_speech.speech_of(part, 8.0) for part in ("train", "dev", "test")}
    characters = {part: {s.character for s in lines} for part, lines in parts.items()}
    assert characters["dev"] == {"BOB", "IAN", "CHIEF"}
    assert characters["test"] == {"FAYE", "LOU", "WITCH"}
    assert not characters["train"] & {"BOB", "IAN", "CHIEF", "FAYE", "LOU", "WITCH", "CUT", "LOLA"}
    assert {part: len(lines) for part, lines in parts.items()} == {
        "train": 4371,
        "dev": 349,
        "test": 346,
    }


def test_training_speech_has_every_line_once_and_long_utterances():
    """4,383 lines of up to 20 s; a quarter of the utterances joins lines of one character."""
    lines = {s.voice: s for s in mini_speech.speech_of("train", 20.0)}
    items = clean_items("train", None, 20.0, True, seed=0)
    used = [voice for item in items for voice in item.recipe.voices]
    assert len(lines) == 4383 and sorted(used) == sorted(lines)
    joined = [item for item in items if item.recipe.pauses]
    assert 0.22 < len(joined) / len(items) < 0.28
    for item in joined:
        parts = [lines[voice] for voice in item.recipe.voices]
        assert {part.character for part in parts} == {item.speaker} and 2 <= len(parts) <= 5
        assert item.text == " ".join(part.text for part in parts)
        assert {part.person for part in parts} == set(item.sources)
    plain = clean_utterances("train", 20.0, False, np.random.default_rng(0))
    assert {(u.speed, u.gain_db) for u in plain} == {(1.0, 0.0)}


def test_long_test_utterances_are_of_the_test_characters():
    lines = {s.voice: s for s in mini_speech.speech_of("test", 20.0)}
    items = clean_items("test_long", None, 20.0, True, seed=0)
    used = [voice for item in items for voice in item.recipe.voices]
    assert len(items) >= 60 and len(used) == len(set(used)) and set(used) <= set(lines)
    for item in items:
        own = sum(lines[voice].seconds for voice in item.recipe.voices)
        assert 8 <= own + sum(item.recipe.pauses) <= 20 and len(item.recipe.voices) >= 2
        assert (item.recipe.speed, item.recipe.gain_db) == (1.0, 0.0)


def test_dev_and_test_lines_are_as_they_were():
    for split, count in (("dev", 349), ("test", 346)):
        items = clean_items(split, None, 20.0, True, seed=0)
        assert len(items) == count and not any(item.recipe.pauses for item in items)
        assert {(item.recipe.speed, item.recipe.gain_db) for item in items} == {(1.0, 0.0)}


def test_prompts_of_another_source():
    """Of 568 prompts: no single words, tones, or texts that do not say what is spoken."""
    prompts = mini_prompts.read_prompts()
    assert len(prompts) == 292
    for prompt in prompts:
        assert prompt.text.replace("'", "").replace(" ", "").isalpha()
        assert prompt.text == prompt.text.lower() and len(prompt.text.split()) >= 2
    items = mini_prompts.prompt_items(None, seed=0)
    assert {item.sources for item in items} == {("ALLISON",)} and len(items) == 292
    assert len({item.id for item in items}) == 292
    assert [item.id for item in mini_prompts.prompt_items(8, seed=0)] != [
        item.id for item in mini_prompts.prompt_items(8, seed=1)
    ]


def test_speaker_sets_share_no_line_and_test_shares_no_person():
    people = {part: mini_speakers.voices_of(part) for part in ("train", "dev", "test")}
    lines = {
        part: {line for voices in found.values() for voice in voices for line in voice.sources}
        for part, found in people.items()
    }
    assert people["train"].keys() == people["dev"].keys() and len(people["train"]) == 6
    assert set(people["test"]) == {"coleman", "james", "valdez", "reagan"}
    assert not set(people["train"]) & set(people["test"])
    assert not lines["train"] & (lines["dev"] | lines["test"])


def test_an_item_has_one_character_for_an_actor():
    character = {s.voice: s.character for s in mini_speech.all_speech()}
    for item in mini_speakers.speaker_items("test", 80, seed=0):
        cast = {character[segment.source] for segment in item.recipe}
        assert mini_speakers.ANSWERS[len(cast)] == item.text


def test_training_has_many_pairs_of_voices_and_no_line_twice():
    character = {s.voice: s.character for s in mini_speech.all_speech()}
    items = mini_speakers.speaker_items("train", 1500, seed=0)
    pairs: Counter = Counter()
    for item in items:
        segments = mini_speakers.segments_of(item)
        assert len({segment.source for segment in segments}) == len(segments)
        pairs.update(combinations(sorted({character[s.source] for s in segments}), 2))
    assert len(pairs) == 104 and min(pairs.values()) >= 10


def test_two_thirds_of_the_training_items_are_in_a_room_whatever_the_answer():
    items = mini_speakers.speaker_items("train", 1200, seed=0)
    everywhere = Counter(item.text for item in items)
    rooms = [item for item in items if isinstance(item.recipe, mini_speakers.InRoom)]
    for answer, count in Counter(item.text for item in rooms).items():
        assert abs(count / everywhere[answer] - 2 / 3) < 0.1  # 3 standard deviations of 240 items
    assert len({item.recipe.room for item in rooms}) == mini_noisy.ROOMS["train"]
    inside = rooms[0]
    outside = dataclasses.replace(inside, recipe=inside.recipe.segments)
    heard, dry = (mini_speakers.render_speakers(item) for item in (inside, outside))
    assert heard.shape == dry.shape and 0.3 < np.corrcoef(heard, dry)[0, 1] < 0.99
    assert 10 * np.log10(np.mean(np.square(heard))) == pytest.approx(LEVEL_DB, abs=0.01)
    assert not any(
        isinstance(item.recipe, mini_speakers.InRoom)
        for part in ("dev", "test")
        for item in mini_speakers.speaker_items(part, 60, seed=0)
    )


def test_real_people():
    people = mini_real.council_people()
    assert len(people) == 6 and len({name for room in people.values() for name in room}) == 9
    clusters = set(clusters_of(mini_real.real_items(80, 0)).values())
    assert len(clusters) == 9  # two groups of council members, seven groups of meetings
    answers = Counter(item.text for item in mini_real.council_items(200, 0))
    assert answers == {"one": 50, "two": 50, "three": 50, "four": 50}
    assert Counter(item.text for item in mini_real.ami_items()) == {
        "one": 16,
        "two": 17,
        "three": 6,
        "four": 4,
    }


def test_every_clip_is_there_and_can_be_heard():
    paths = clip_paths()
    assert len(paths) == sum(len(sound.clips) for sound in read_sounds())
    for clip, path in paths.items():
        samples = clip_audio(path)
        assert len(samples) >= 0.75 * 16000 and power(samples) > 1e-7, clip


def test_unseen_labels_and_test_clips_are_not_trained_on():
    clips, labels = {}, {}
    for part in SETS["ac"]:
        items = sound_items(part, 300, seed=0)
        clips[part] = {p.clip for item in items for p in item.recipe.parts}
        labels[part] = {item.tables["text_warmup"] for item in items if len(item.recipe.parts) == 1}
    assert not clips["train"] & (clips["dev"] | clips["test"] | clips["test_unseen"])
    assert not labels["train"] & labels["test_unseen"]
    assert labels["test"] & labels["train"]


def test_no_label_or_caption_dominates_the_training_set():
    items = sound_items("train", 800, seed=0)
    of_sounds = Counter(label for item in items for label in item.recipe.labels)
    people = of_sounds.pop("man") + of_sounds.pop("woman")
    assert max(of_sounds.values()) - min(of_sounds.values()) <= 2  # one of each deck
    assert people <= 60  # of 1,300 sounds
    texts = Counter(item.text for item in items)
    assert max(texts.values()) == 2
    assert "caption is that of 2 of 800 items (0.25%)" in most_frequent(items)


def test_voices_in_captions_are_of_the_split():
    train, other = _lines_of(("JOE",)), _lines_of(("BOB", "IAN", "CHIEF"))
    assert len(train) > 100 and len(other) > 100 and not set(train) & set(other)


def test_noise_is_of_the_split_and_as_loud_as_drawn():
    character = {s.voice: s.character for s in mini_speech.all_speech()}
    for split in ("train", "dev", "test"):
        assert len(ambience_clips(split)) >= 8
        for item in noisy_items(split, 6, 20.0, True, seed=0):
            recipe = item.recipe
            talkers = {character[voice] for voice in recipe.talkers}
            assert {mini_speech.split_of(name) for name in talkers} == {split}
            assert item.speaker not in talkers and recipe.ambience in ambience_clips(split)
            assert 0 <= recipe.snr_db <= 20
            rooms = room_bank(split, 0)[recipe.room]
            speech = reverberant(utterance_audio(recipe.speech), rooms[0])
            assert power(noise_of(recipe, rooms, len(speech))) > 1e-7


def test_all_sets_are_valid_and_bounded(tiny):
    ids: set[str] = set()
    for name in NAMES:
        assert validate(tiny / name) == [], name
        found = DataDir.read(tiny / name)
        assert not ids & set(found.utterances)
        ids |= set(found.utterances)
        for utt in found.utterances:
            samples = load_audio(*found.audio(utt))
            assert 0.8 <= len(samples) / 16000 <= 20.0 and np.abs(samples).max() <= 0.96, utt


def test_same_options_same_bytes(tiny, tmp_path):
    prepare(tmp_path / "data", "--nj", "1")
    assert contents(tmp_path / "data") == contents(tiny)


def test_another_seed_draws_other_items(tiny, tmp_path):
    prepare(tmp_path / "data", "--corpora", "snv", "--seed", "1")
    first, second = (DataDir.read(folder / "snv_train") for folder in (tiny, tmp_path / "data"))
    assert first["text_warmup"] != second["text_warmup"]


def test_the_summary_counts_every_set(tiny):
    table = prepare(tiny, "--nj", "2")
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:-1]}
    assert set(rows) == {*NAMES, "all"} and rows["asr_clean_train"][0] == "24"
    assert table.splitlines()[-1].startswith("ac_train: the most frequent caption")
