"""Scores of silence and repetition: clips whose scores are known, and their place in hyp.jsonl."""

import numpy as np
import pytest
import soundfile

from pam.data.datadir import DataDir
from pam.decode.checks import checked, no_speech, no_speech_of, repetition
from pam.decode.settings import NO_SPEECH, REPEATED, check_threshold
from pam.errors import PamError
from pam.rate import SAMPLE_RATE


def white(seconds, db=-20.0, seed=0):
    samples = np.random.default_rng(seed).normal(0, 1, round(seconds * SAMPLE_RATE))
    return (10 ** (db / 20) * samples).astype(np.float32)


def pink(seconds, db=-20.0):
    spectrum = np.fft.rfft(white(seconds, 0.0).astype(np.float64))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    samples = np.fft.irfft(spectrum, round(seconds * SAMPLE_RATE))
    return (10 ** (db / 20) * samples / samples.std()).astype(np.float32)


def hum(seconds, hertz=50):
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waves = [np.sin(2 * np.pi * hertz * k * time + k) / k for k in range(1, 6)]
    return (0.05 * sum(waves)).astype(np.float32)


def syllables(seconds, db=-20.0, noise_db=-35.0):
    """Noise whose level rises and falls four times a second, over steadier noise."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    loud = white(seconds, db, seed=1) * np.sin(np.pi * 4 * time) ** 2
    return (loud + white(seconds, noise_db)).astype(np.float32)


SILENT = {
    "digital": np.zeros(32000, np.float32),
    "dither": white(2, -95.0),
    "room": white(2, -65.0),
}
STEADY = {
    "white": white(2),
    "pink": pink(2),
    "loud": white(2, -6.0),
    "hum": hum(2),
    "60": hum(2, 60),
}
SHORT = {"0.1 s": syllables(0.1), "0.45 s": syllables(0.45), "one": np.ones(1, np.float32)}
REAL = {
    "clean": syllables(2),
    "noisy": syllables(2, -20.0, -24.0),
    "quiet": syllables(2, -45.0, -70),
}


@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("is_transcript", [False, True])
def test_silence(name, is_transcript):
    assert no_speech(SILENT[name], is_transcript) > 0.9


@pytest.mark.parametrize("name", STEADY)
def test_a_steady_sound_is_no_speech_but_can_be_described(name):
    assert no_speech(STEADY[name], True) > 0.9
    assert no_speech(STEADY[name], False) < 0.1


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("is_transcript", [False, True])
def test_clips_under_half_a_second(name, is_transcript):
    assert no_speech(SHORT[name], is_transcript) > 0.5


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("is_transcript", [False, True])
def test_sound_that_changes(name, is_transcript):
    assert no_speech(REAL[name], is_transcript) < 0.1


def test_a_score_for_any_clip():
    for samples in (*SILENT.values(), *STEADY.values(), *SHORT.values(), 100 * white(1)):
        assert 0 <= no_speech(samples, True) <= 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("", 0.0),
        ("two", 0.0),
        ("a dog barks and a cat meows", 0.0),
        ("uh uh uh uh", 1 / 2),
        ("Uh uh UH uh uh uh", 3 / 4),
        ("i see a dog i see a cat", 1 / 6),
        ("hahahaha", 4 / 6),
    ],
)
def test_the_share_of_repeated_trigrams(text, score):
    assert repetition(text) == pytest.approx(score)


def test_a_loop_is_above_the_threshold():
    assert repetition("they've got me safer than " * 4) > REPEATED
    assert repetition("the doctor who was the guy who was the rocket") < REPEATED


@pytest.fixture
def data(tmp_path):
    files = {"a": white(1), "b": syllables(1), "c": SILENT["digital"]}
    for utt, samples in files.items():
        soundfile.write(tmp_path / f"{utt}.wav", samples, SAMPLE_RATE)
    paths = {utt: str(tmp_path / f"{utt}.wav") for utt in files}
    return DataDir({"wav.scp": paths, "utt2task": {"a": "ac", "b": "asr_clean", "c": "snv"}})


def test_the_score_follows_the_task(data):
    scores = {utt: no_speech_of(data, utt, needed=True) for utt in "abc"}
    assert scores["a"] < 0.1 and scores["b"] < 0.1 and scores["c"] > 0.9
    data.files["utt2task"]["a"] = "asr_noisy"
    assert no_speech_of(data, "a", needed=True) > 0.9


def test_audio_that_is_gone(data):
    data.files["wav.scp"]["a"] = "/nowhere/a.wav"
    assert no_speech_of(data, "a", needed=False) is None
    with pytest.raises(PamError, match="--skip_silence: no audio of a: .*no such audio file"):
        no_speech_of(data, "a", needed=True)


def test_a_skipped_line_says_so():
    line = {"id": "a", "hyp": "uh uh uh uh"}
    scores = {"no_speech": 0.7, "repetition": 0.5}
    assert checked(line, 0.7, None) == checked(line, 0.7, 0.71) == {**line, **scores}
    skipped = {"id": "a", "hyp": "", "no_speech": 0.7, "repetition": 0.0, "skipped": True}
    assert checked(line, 0.7, 0.7) == skipped
    assert checked(line, None, None) == {**line, "no_speech": None, "repetition": 0.5}


@pytest.mark.parametrize("score", [-0.1, 1.01, float("nan")])
def test_a_threshold_out_of_range(score):
    with pytest.raises(PamError, match=r"skip_silence \S+: the score is from 0 to 1"):
        check_threshold(score)
    check_threshold(NO_SPEECH)
