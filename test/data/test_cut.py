"""Long audio: read in blocks, cut at quiet places."""

import tracemalloc

import numpy as np
import pytest
import soundfile

from pam.data.audio import load_audio, stream_audio
from pam.data.concat import concat_entry
from pam.data.cut import (
    LONGEST_PIECE,
    OVERLAP_SECONDS,
    WINDOW_SHARE,
    cut_audio,
    longest_piece,
    overlap_seconds,
    quietest,
)
from pam.errors import PamError
from pam.rate import SAMPLE_RATE


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    return samples.astype(np.float32)


def speech(seconds, pauses, width=0.3):
    """Noise that is silent for `width` seconds around each of `pauses`."""
    samples = noise(seconds)
    for pause in pauses:
        at = round((pause - width / 2) * SAMPLE_RATE)
        samples[at : at + round(width * SAMPLE_RATE)] *= 0.01
    return samples


def in_blocks(samples, size):
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def test_a_piece_ends_in_a_pause():
    pauses = [2.0, 6.5, 9.0, 12.5, 19.0]
    pieces = list(cut_audio([speech(24, pauses)], 8.0))
    half = overlap_seconds(8.0) / 2
    cuts = [piece.end - half for piece in pieces[:-1]]
    assert cuts == pytest.approx([6.5, 12.5, 19.0], abs=0.06)
    assert [piece.start for piece in pieces[1:]] == pytest.approx([c - half for c in cuts])


@pytest.mark.parametrize("limit", [0.1, 1.0, 7.92, 30.0])
@pytest.mark.parametrize("size", [999, 50_000, 1 << 20])
def test_pieces_are_all_of_the_audio(limit, size):
    """No sample is lost, no piece is too long or short, whatever the blocks are."""
    samples = noise(10 * limit, seed=round(limit))
    pieces = list(cut_audio(in_blocks(samples, size), limit))
    half = overlap_seconds(limit) / 2
    joined = np.empty(0, np.float32)
    for piece in pieces:
        begin = round(piece.start * SAMPLE_RATE)
        np.testing.assert_array_equal(piece.samples, samples[begin : begin + len(piece.samples)])
        assert begin <= len(joined)
        joined = np.concatenate([joined[:begin], piece.samples])
    np.testing.assert_array_equal(joined, samples)
    lengths = np.array([piece.end - piece.start for piece in pieces])
    assert (lengths[:-1] <= limit + 1e-4).all() and lengths[-1] <= 1.05 * limit + 1e-4
    assert (lengths[:-1] >= (1 - WINDOW_SHARE) * limit - 2 * half - 1e-2).all()
    for one, other in zip(pieces[:-1], pieces[1:], strict=True):
        assert one.end - other.start == pytest.approx(2 * half, abs=2 / SAMPLE_RATE)


def test_the_pieces_do_not_depend_on_the_blocks():
    samples = noise(40)
    whole = [(piece.start, piece.end) for piece in cut_audio([samples], 8.0)]
    for size in (700, 16000, 300_000):
        pieces = cut_audio(in_blocks(samples, size), 8.0)
        assert [(piece.start, piece.end) for piece in pieces] == whole


@pytest.mark.parametrize(("seconds", "count"), [(0.01, 1), (8.0, 1), (8.39, 1), (8.41, 2)])
def test_audio_that_is_hardly_longer_is_one_piece(seconds, count):
    pieces = list(cut_audio([noise(seconds)], 8.0))
    assert len(pieces) == count
    assert pieces[0].start == 0.0


def test_limits():
    assert longest_piece(None) == longest_piece(40.0) == LONGEST_PIECE
    assert longest_piece(7.92) == 7.92
    assert overlap_seconds(30.0) == OVERLAP_SECONDS and overlap_seconds(4.0) == 0.5


def test_the_middle_of_a_silence():
    samples = noise(3)
    samples[16000:32000] = 0
    assert quietest(samples) == pytest.approx(24000, abs=200)
    assert quietest(np.zeros(100, np.float32)) == 50


# --- streams


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_stream_has_the_samples_of_the_file(tmp_path, monkeypatch, rate, name):
    """In small blocks; the resampler has the same state between them."""
    soundfile.write(tmp_path / name, noise(3 * rate / SAMPLE_RATE), rate)
    whole = load_audio(tmp_path / name)
    monkeypatch.setattr("pam.data.sound.BLOCK_SAMPLES", 1000)
    blocks = list(stream_audio(tmp_path / name))
    assert len(blocks) > 10 and {block.dtype for block in blocks} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_stream_of_two_channels(tmp_path, monkeypatch, sign):
    one = noise(1)
    soundfile.write(tmp_path / "a.wav", np.stack([one, sign * 0.999 * one], 1), 16000)
    whole = load_audio(tmp_path / "a.wav")
    monkeypatch.setattr("pam.data.sound.BLOCK_SAMPLES", 1000)
    found = np.concatenate(list(stream_audio(tmp_path / "a.wav")))
    np.testing.assert_array_equal(found, whole)
    assert np.abs(found).max() > 0.1


def test_a_stream_of_a_concatenation_and_of_a_part(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(2), 16000)
    soundfile.write(tmp_path / "b.flac", noise(1, seed=1), 8000)
    entry = concat_entry([(tmp_path / "a.wav", 0.5, 1.5), (tmp_path / "b.flac", None, None)])
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(entry))), load_audio(entry))
    part = np.concatenate(list(stream_audio(tmp_path / "a.wav", 0.25, 0.5)))
    np.testing.assert_array_equal(part, load_audio(tmp_path / "a.wav", 0.25, 0.5))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such audio file"), (b"text", "truncated or corrupt"), (0, "0 samples")],
)
def test_a_bad_file_is_the_same_error(tmp_path, content, message):
    path = tmp_path / "a.wav"
    if content == 0:
        soundfile.write(path, np.empty(0), 16000)
    elif content:
        path.write_bytes(content)
    with pytest.raises(PamError) as error:
        load_audio(path)
    with pytest.raises(PamError) as other:
        list(stream_audio(path))
    assert str(other.value) == str(error.value) and message in str(error.value)


def test_nan_in_a_later_block(tmp_path, monkeypatch):
    samples = noise(1)
    samples[15000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    monkeypatch.setattr("pam.data.sound.BLOCK_SAMPLES", 1000)
    with pytest.raises(PamError, match="NaN or infinite"):
        list(stream_audio(tmp_path / "a.wav"))


def test_an_hour_takes_little_memory(tmp_path):
    """Of 230 MB of samples, a block and a piece are in memory."""
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        minute = noise(30)  # at 8 kHz
        for _ in range(60):
            file.write(minute)
    tracemalloc.start()
    end = sum(1 for _ in cut_audio(stream_audio(path), 30.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert end > 120
    assert peak < 40e6
