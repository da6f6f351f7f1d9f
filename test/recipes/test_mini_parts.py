"""The parts of the mini recipe that need no corpora: texts, labels, captions, mixing, counting."""

import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "egs/mini/local")]

import mini_lines  # noqa: E402
import mini_noisy  # noqa: E402
import mini_real  # noqa: E402
import mini_speakers  # noqa: E402
from mini_ac import Deck, Mixture, Part, _one_by_one, _over  # noqa: E402
from mini_captions import NUM_REFERENCES, OVERLAY, SEQUENCE, Phrase, captions  # noqa: E402
from mini_items import choose, limited, rng_for  # noqa: E402
from mini_lines import Utterance, long_utterances, training_utterances  # noqa: E402
from mini_mix import at_level, faded, looped, loudest_start, mix_at_snr, power  # noqa: E402
from mini_prompts import with_digits_as_words  # noqa: E402
from mini_queen import VoiceLine  # noqa: E402
from mini_rcc import read_rcc  # noqa: E402
from mini_sounds import Sound, find_clip, read_sounds, repeated, split_sounds, trimmed  # noqa: E402
from mini_speakers import (  # noqa: E402
    ANSWERS,
    SEGMENTS_OF_60,
    Segment,
    Voice,
    balanced_layouts,
    counted_items,
    joined,
    segments_of,
    speaker_items,
    speaker_order,
    training_layouts,
)
from mini_speech import ACTOR_OF, LEFT_OUT, SPLITS, Speech, is_usable, split_of, spoken_text  # noqa: E402

from pam.errors import PamError  # noqa: E402

PEOPLE = {
    name: [Voice(name, tuple(f"{name}{i}" for i in range(9)))]
    for name in ("ann", "bob", "cy", "di")
}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("You got some nerve Anderson.", "you got some nerve anderson"),
        ("I can't...  Mary-Lou's CO-OWNER?", "i can't mary lou's co owner"),
        ("No one says \"stickin'\" to 'em!", "no one says stickin' to 'em"),
        ("the Super Soldier Treatment^_.", "the super soldier treatment"),
        ("The R.S.P.C.A.?", "the r s p c a"),
        ("@@ She's beautiful! @@", "she's beautiful"),
        ("(sigh)", None),
        ("<koff>", None),
        ("*sigh* all right", None),
        ("It closes at 19:00 hours", None),
        ("&#($!!, he got away!", None),
        ("' ...", None),
    ],
)
def test_text_is_what_is_spoken(line, words):
    assert spoken_text(line) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Press 1, or 0.", "Press one, or zero."),
        ("the 7 key for Q", "the seven key for Q"),
        ("3D audio", "3D audio"),
        ("H.323", "H.323"),
        ("(10 seconds of silence)", "(10 seconds of silence)"),
    ],
)
def test_single_digits_of_a_prompt_are_words(text, words):
    assert with_digits_as_words(text) == words


@pytest.mark.parametrize(
    ("text", "seconds", "usable"),
    [
        ("Two words", 1.0, True),
        ("Two words", 0.99, False),
        ("Two words and more of them", 20.1, False),
        ("Oneword", 1.0, False),
        ("Two words", 2.3, False),  # 3.9 characters a second
        ("Two words and more of them.", 1.0, False),  # 27 characters a second
    ],
)
def test_lines_whose_speed_or_length_is_wrong_are_left_out(text, seconds, usable):
    assert is_usable(VoiceLine("X", text, "BOB"), seconds) is usable


def test_splits_share_neither_characters_nor_known_actors():
    actors = {"train": set(), "dev": set(), "test": set()}
    for character, actor in ACTOR_OF.items():
        actors[split_of(character)].add(actor)
    assert {split_of(name) for name in LEFT_OUT} == {None}
    assert [split_of(name) for name in SPLITS["dev"]] == ["dev"] * 3
    assert not actors["train"] & (actors["dev"] | actors["test"])
    assert not actors["dev"] & actors["test"]


def test_snr_is_exact():
    rng = np.random.default_rng(0)
    speech, noise = (rng.normal(size=4000).astype(np.float32) * a for a in (0.1, 3.0))
    for snr in (-5.0, 0.0, 12.5):
        added = mix_at_snr(speech, noise, snr) - speech
        assert 10 * np.log10(power(speech) / power(added)) == pytest.approx(snr, abs=1e-3)


def test_level_is_exact_and_peaks_are_limited():
    samples = np.sin(np.arange(3000, dtype=np.float32))
    assert 10 * np.log10(power(at_level(samples, -20.0))) == pytest.approx(-20.0, abs=1e-3)
    assert np.abs(limited(samples * 3)).max() == pytest.approx(0.95)
    assert limited(samples * 0.5) is not None and np.array_equal(
        limited(samples * 0.5), samples * 0.5
    )


@pytest.fixture
def toy_lines():
    return [Speech(f"V{i:03d}", f"word {i}", "JOE", 1 + i % 4) for i in range(200)] + [
        Speech("S001", "a long line", "SPARKY", 19.5),
        Speech("S002", "another one", "SPARKY", 2.0),
    ]


def test_every_line_is_used_once_and_joined_within_bounds(toy_lines):
    seconds = {line.voice: line.seconds for line in toy_lines}
    rng = np.random.default_rng(0)
    made = training_utterances(toy_lines, 19.6, perturb=True, rng=rng)
    assert sorted(v for u in made for v in u.voices) == sorted(seconds)
    assert len({u.id() for u in made}) == len(made)
    for u in made:
        length = sum(seconds[v] for v in u.voices) / u.speed + sum(u.pauses)
        assert length <= 19.6 and len(u.pauses) == len(u.voices) - 1
        assert all(0.1 <= pause <= 0.6 for pause in u.pauses)
        assert 0.95 <= u.speed <= 1.05 and -6 <= u.gain_db <= 6
    assert len({u.speed for u in made}) > 20
    for u in long_utterances(toy_lines, np.random.default_rng(1)):
        length = sum(seconds[v] for v in u.voices) + sum(u.pauses)
        assert 8 <= length <= 20 and len(u.voices) >= 2 and u.speed == 1


def test_joined_lines_keep_their_order_pauses_speed_and_level(monkeypatch):
    said = {"A": np.full(1000, 0.5, np.float32), "B": np.full(3000, -0.5, np.float32)}
    monkeypatch.setattr(
        mini_lines, "voice_audio", lambda voice, speed: said[voice][: int(1000 / speed)]
    )
    out = mini_lines.render_utterance(
        Utterance("JOE", "lavelle", "a b", ("A", "B"), (0.1,), speed=1.25, gain_db=-6.0)
    )
    assert len(out) == 800 + 1600 + 800 and not out[800:2400].any()
    assert np.allclose(out[:800], 0.5 * 10 ** (-6 / 20)) and (out[2400:] < 0).all()


def test_looping_starts_where_asked_and_goes_round():
    assert looped(np.arange(4.0), 6, 3).tolist() == [3, 0, 1, 2, 3, 0]


def test_fades_start_and_end_in_silence_without_changing_the_middle():
    out = faded(np.ones(1000, np.float32))
    assert out[0] == 0 and out[-1] == 0 and np.all(out[80:-80] == 1)


def test_loudest_part_is_found():
    samples = np.zeros(16000, np.float32)
    samples[8000:10000] = 0.5
    start = loudest_start(samples, 2000)
    assert abs(start - 8000) <= 160
    assert loudest_start(samples[:1000], 2000) == 0


def test_silence_is_cut_and_short_clips_are_repeated():
    clip = np.concatenate([np.zeros(8000), np.ones(3200) * 0.3, np.zeros(8000)]).astype(np.float32)
    assert len(trimmed(clip)) == 3200
    assert not np.any(trimmed(np.zeros(500, np.float32)))
    again = repeated(trimmed(clip))
    assert len(again) + 4000 >= 1.6 * 16000 and np.array_equal(again[:3200], again[7200:10400])
    assert len(repeated(clip)) == len(clip)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_five_different_captions_name_every_sound_in_order(count):
    phrases = [Phrase("a dog", "barks", "barking"), Phrase("coins", "jingle", "jingling")]
    phrases = [*phrases, Phrase("rain", "falls", "falling")][:count]
    found = captions(phrases, SEQUENCE)
    assert len(set(found)) == NUM_REFERENCES
    for caption in found:
        places = [caption.index(phrase.subject) for phrase in phrases]
        assert places == sorted(places)
        assert "dog are" not in caption and "coins is" not in caption


def test_overlay_captions_say_what_is_behind():
    found = captions(
        [Phrase("a man", "speaks", "speaking"), Phrase("rain", "falls", "falling")], OVERLAY
    )
    assert "a man speaks while rain is falling" in found
    assert "a man speaking with rain falling in the background" in found
    assert len(set(found)) == NUM_REFERENCES


def test_table_of_sounds_is_sound():
    sounds = read_sounds()
    assert len(sounds) == 213 and sum(len(s.clips) for s in sounds) == 464
    for sound in sounds:
        words = f"{sound.phrase.subject} {sound.phrase.verb} {sound.phrase.ing}"
        assert words.replace(" ", "").isalpha() and words == words.lower()
        assert sound.phrase.ing.split()[0].endswith("ing")
        vowel = sound.phrase.subject.split(" ", 1)[-1][0] in "aeio"
        if sound.phrase.subject.startswith(("a ", "an ")):
            assert sound.phrase.subject.startswith("an ") == vowel, sound


def test_a_bad_table_names_its_line(tmp_path):
    bad = tmp_path / "sounds.tsv"
    bad.write_text("# head\ndog\ta dog\tbarks\tbarking\tx:dog\ncat\ta cat\tmeows\tmeowing\tx:dog\n")
    with pytest.raises(PamError, match="sounds.tsv:3"):
        read_sounds(bad)


def test_sounds_are_split_by_label_and_by_clip():
    parts = split_sounds(read_sounds())
    labels = {part: {s.label for s in sounds} for part, sounds in parts.items()}
    clips = {part: {c for s in sounds for c in s.clips} for part, sounds in parts.items()}
    assert labels["test"] <= labels["train"] and labels["dev"] <= labels["train"]
    assert not labels["test_unseen"] & (labels["train"] | labels["dev"] | labels["test"])
    assert sum(map(len, clips.values())) == len(set().union(*clips.values())) == 464
    assert len(labels["test_unseen"]) == round(0.2 * 213)


def test_a_deck_deals_every_label_and_clip_equally_often():
    phrase = Phrase("a dog", "barks", "barking")
    sounds = [Sound(f"l{i}", phrase, tuple(f"x:{i}{k}" for k in range(1 + i))) for i in range(5)]
    deck = Deck(sounds, np.random.default_rng(0), Counter())
    hands = [deck.deal(1 + i % 3) for i in range(30)]  # 60 clips
    dealt = Counter(sound.label for hand in hands for sound, _ in hand)
    assert dealt == {f"l{i}": 12 for i in range(5)}
    assert all(len({sound.label for sound, _ in hand}) == len(hand) for hand in hands)
    clips = Counter(clip for hand in hands for _, clip in hand)
    assert clips == {f"x:{i}{k}": 12 // (1 + i) for i in range(4) for k in range(1 + i)} | {
        f"x:4{k}": 2 + (k < 2) for k in range(5)
    }


def test_a_clip_names_exactly_one_file():
    files = {"a:x/dog": Path("1"), "a:y/dog": Path("2"), "a:y/cat": Path("3"), "b:dog": Path("4")}
    assert find_clip("a:cat", files) == Path("3")
    assert find_clip("a:y/dog", files) == Path("2")
    assert find_clip("b:dog", files) == Path("4")
    for clip in ("a:dog", "a:og", "c:dog"):
        with pytest.raises(PamError, match="files"):
            find_clip(clip, files)


def test_answers_are_balanced_and_true():
    items = counted_items("t", PEOPLE, balanced_layouts(40), seed=3)
    assert Counter(item.text for item in items) == dict.fromkeys(ANSWERS.values(), 10)
    for item in items:
        heard = {segment.source.rstrip("0123456789") for segment in item.recipe}
        assert ANSWERS[len(heard)] == item.text
        order = [segment.source.rstrip("0123456789") for segment in item.recipe]
        assert item.tables["text_warmup"] == " ".join(order)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("segments", [4, 6])
def test_everybody_speaks(count, segments):
    for seed in range(20):
        order = speaker_order(count, list(PEOPLE), np.random.default_rng(seed), segments)
        assert len(order) == segments and len(set(order)) == count


def test_an_actor_without_a_voice_of_enough_lines_is_left_out(monkeypatch):
    few = {"eve": [Voice("eve", ("eve0", "eve1"))]}
    monkeypatch.setattr(mini_speakers, "voices_of", lambda split: PEOPLE | few)
    items = speaker_items("train", 60, seed=0)
    assert {segment.source[:-1] for item in items for segment in segments_of(item)} == PEOPLE.keys()
    three = {name: voices for name, voices in PEOPLE.items() if name != "di"}
    monkeypatch.setattr(mini_speakers, "voices_of", lambda split: three | few)
    with pytest.raises(PamError, match="snv-train: 3 people with enough recordings, an item needs"):
        speaker_items("train", 60, seed=0)


def test_length_says_nothing_about_the_answer():
    """A classifier on the total length (a threshold learnt by class means) stays at chance."""
    items = counted_items("t", PEOPLE, balanced_layouts(2000), seed=0)
    lengths = np.array([[sum(s.seconds + s.pause for s in item.recipe)] for item in items])
    answers = np.array([item.text for item in items])
    half = len(items) // 2
    means = {a: lengths[:half][answers[:half] == a].mean() for a in ANSWERS.values()}
    guess = [min(means, key=lambda a: abs(means[a] - x)) for x in lengths[half:, 0]]
    accuracy = np.mean(np.array(guess) == answers[half:])
    assert abs(accuracy - 0.25) < 0.05  # 3.6 standard deviations of 1000 guesses
    spread = np.ptp([lengths[answers == a].mean() for a in ANSWERS.values()])
    assert spread < 0.06  # of 5.8 s


def test_training_layouts_are_balanced_given_the_number_of_segments():
    layouts = Counter(training_layouts(600, np.random.default_rng(0)))
    for segments, items in SEGMENTS_OF_60.items():
        possible = range(1, min(segments, 4) + 1)
        expected = dict.fromkeys(possible, 10 * items // len(possible))
        assert {k: layouts[segments, k] for k in range(1, 5) if layouts[segments, k]} == expected
    answers = Counter(training_layouts(600, np.random.default_rng(0))[i][1] for i in range(600))
    assert answers == {1: 170, 2: 170, 3: 140, 4: 120}


def test_neither_length_nor_number_of_segments_tells_the_answer_in_training():
    """Who knows both guesses right in 28.3 % of the items, like who always answers "one"."""
    layouts = training_layouts(6000, np.random.default_rng(1))
    items = counted_items("t", PEOPLE, layouts, seed=0)
    seconds = np.array([sum(s.seconds + s.pause for s in item.recipe) for item in items])
    answers = np.array([ANSWERS[people] for _, people in layouts])
    assert all(item.text == answer for item, answer in zip(items, answers, strict=True))
    half = len(items) // 2
    for features in (
        [segments for segments, _ in layouts],
        np.round(seconds * 2),
        [f"{segments} {round(s)}" for (segments, _), s in zip(layouts, seconds, strict=True)],
    ):
        seen: dict = {}
        for feature, answer in zip(features[:half], answers[:half], strict=True):
            seen.setdefault(feature, Counter())[answer] += 1
        guess = [
            seen[f].most_common(1)[0][0] if f in seen else "one" for f in list(features)[half:]
        ]
        assert np.mean(np.array(guess) == answers[half:]) < 17 / 60 + 0.025  # 3 deviations


def test_segments_are_as_long_and_as_loud_as_planned():
    rng = np.random.default_rng(0)
    parts = [
        (rng.normal(size=count).astype(np.float32) * level, Segment("x", 1.25, 0.2))
        for count, level in ((40000, 0.01), (40000, 0.5), (8000, 0.1))
    ]
    out = joined(parts)
    assert len(out) == 3 * round(1.45 * 16000)
    first, second = (power(out[i * 23200 + 3200 :][:20000]) for i in (0, 1))
    assert first == pytest.approx(second, rel=0.05)
    assert not out[:3200].any() and not out[-12000:].any()  # a pause; the third ran out


def test_reverberation_keeps_length_and_time():
    samples = np.zeros(4000, np.float32)
    samples[100] = 1
    response = np.zeros(800, np.float32)
    response[0], response[300] = 1, 0.5
    heard = mini_noisy.reverberant(samples, response)
    assert len(heard) == 4000 and np.argmax(heard) == 100
    assert heard[400] == pytest.approx(0.5, abs=1e-5)


def test_rooms_are_real_and_the_same_for_a_seed(monkeypatch):
    monkeypatch.setattr(mini_noisy, "ROOMS", {"dev": 2})
    monkeypatch.setattr(mini_noisy, "MAX_REFLECTIONS", 4)
    bank = mini_noisy.room_bank.__wrapped__
    rooms = bank("dev", 5)
    assert rooms.shape == (2, 3, 8000) and np.array_equal(rooms, bank("dev", 5))
    assert not np.array_equal(rooms, bank("dev", 6))
    assert np.allclose(np.square(rooms).sum(axis=-1), 1, atol=1e-4)
    assert (np.argmax(np.abs(rooms), axis=-1) < 1000).all()


def test_ambience_of_the_splits_is_not_in_the_captions():
    labelled = {c.split(":")[1].rstrip("0123456789") for s in read_sounds() for c in s.clips}
    scenes = [name for names in mini_noisy.AMBIENCE.values() for name in names]
    assert len(scenes) == len(set(scenes)) and not labelled & set(scenes)


def test_windows_count_only_people_who_speak_long_enough():
    turns = [(0.0, 6.5, "a"), (2.0, 3.5, "b"), (7.2, 7.4, "c"), (8.0, 14.0, "c"), (20.0, 20.5, "a")]
    # At 6.0 s "a" would speak for half a second only; after 14 s nobody speaks for a second.
    assert list(mini_real.windows(turns)) == [(0.0, 2), (6.5, 1), (12.5, 1)]


def test_mixtures_hold_all_their_sounds():
    front, back = np.ones(100, np.float32), np.full(40, 2, np.float32)
    assert _over(front, back).tolist() == [3.0] * 100
    assert _over(back, front).sum() == 180
    part = Part("x:y", 0.0, 1.0, 0.0, gap=0.001)
    out = _one_by_one([front, back], Mixture(SEQUENCE, (part, part)))
    assert len(out) == 100 + 16 + 40 and out[100:116].sum() == 0


def test_draws_depend_on_the_seed_and_the_name_only():
    assert rng_for(1, "a", "b").random() == rng_for(1, "a", "b").random()
    assert rng_for(1, "a").random() != rng_for(2, "a").random()
    assert rng_for(1, "a").random() != rng_for(1, "b").random()
    pool = list(range(50))
    some = choose(pool, 7, rng_for(0, "x"))
    assert some == sorted(set(some)) and len(some) == 7
    assert choose(pool, None, rng_for(0, "x")) == choose(pool, 99, rng_for(0, "x")) == pool


def test_resource_files_are_read_plain_and_compressed(tmp_path):
    sound = b"RIFF" * 30
    names, offsets = b"", []
    for name in ("animals", "dog.wav", "cat.wav"):
        offsets.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    packed = struct.pack(">I", len(sound)) + zlib.compress(sound)
    data = struct.pack(">I", len(sound)) + sound + struct.pack(">I", len(packed)) + packed
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", offsets[0], 2, 2, 2)
    for offset, flags, at in ((offsets[1], 0, 0), (offsets[2], 1, 4 + len(sound))):
        tree += struct.pack(">IHHHI", offset, flags, 0, 0, at)
    head = struct.pack(">4sIIII", b"qres", 1, 20, 20 + len(tree), 20 + len(tree) + len(data))
    path = tmp_path / "x.rcc"
    path.write_bytes(head + tree + data + names)
    assert list(read_rcc(path)) == [("animals/dog.wav", sound), ("animals/cat.wav", sound)]
    path.write_bytes(b"PK" + bytes(30))
    with pytest.raises(PamError, match="not a Qt resource"):
        list(read_rcc(path))
