"""Every kind of audio file, good and bad, and what load_audio makes of it."""

import shlex
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from pam.atomic import part_of
from pam.data.audio import (
    check_audio,
    load_audio,
    num_samples,
    stated_seconds,
    stream_audio,
    write_channel,
    write_flac,
)
from pam.errors import PamError
from pam.rate import SAMPLE_RATE


def sine(seconds=1.0, rate=SAMPLE_RATE, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def one_line_error(path, *arguments):
    with pytest.raises(PamError) as error:
        load_audio(path, *arguments)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    if not arguments:  # reading it block by block finds the same
        with pytest.raises(PamError) as other:
            check_audio(path)
        assert str(other.value) == message
    return message


@pytest.mark.parametrize(
    ("name", "rate", "subtype", "tolerance"),
    [
        ("a.wav", 16000, "PCM_16", 2**-15),
        ("a.wav", 16000, "PCM_U8", 2**-6),
        ("a.wav", 16000, "PCM_24", 2**-20),
        ("a.wav", 16000, "FLOAT", 1e-6),
        ("a.flac", 16000, "PCM_16", 2**-15),
        ("a.wav", 48000, "PCM_16", 2e-3),
        ("a.wav", 8000, "PCM_16", 2e-3),
        ("a.wav", 11025, "PCM_16", 2e-3),
        ("a.flac", 44100, "PCM_16", 2e-3),
        ("a.mp3", 16000, "MPEG_LAYER_III", 0.05),
        ("a.ogg", 16000, "VORBIS", 0.05),
        ("a.ogg", 48000, "OPUS", 0.05),
        ("a.aiff", 16000, "PCM_16", 2**-15),
        ("a.w64", 16000, "PCM_16", 2**-15),
        ("a.rf64", 16000, "PCM_16", 2**-15),
    ],
)
def test_formats_and_rates(tmp_path, name, rate, subtype, tolerance):
    path = tmp_path / name
    soundfile.write(path, sine(rate=rate), rate, subtype=subtype)
    samples = load_audio(path)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) == SAMPLE_RATE == num_samples(path)
    middle = slice(1000, -1000)  # filters and codecs ring at the edges
    assert np.abs(samples - sine())[middle].max() < tolerance


def test_stereo_is_averaged(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([sine(), np.zeros(SAMPLE_RATE)], axis=1), SAMPLE_RATE)
    np.testing.assert_allclose(load_audio(path), sine() / 2, atol=2**-15)


def test_part_of_a_file(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(), SAMPLE_RATE)
    whole = load_audio(path)
    np.testing.assert_array_equal(load_audio(path, 0.25, 0.5), whole[4000:8000])
    np.testing.assert_array_equal(load_audio(path, 0.25), whole[4000:])
    np.testing.assert_array_equal(load_audio(path, 0.25, 1.3), whole[4000:])  # rounded end
    for start, end in ((0.5, 0.25), (-0.1, 0.5), (0.5, 1.6), (3.0, 4.0)):
        assert "correct its line in segments" in one_line_error(path, start, end)


def test_missing(tmp_path):
    assert "no such audio file" in one_line_error(tmp_path / "none.wav")
    assert "no such audio file" in one_line_error(tmp_path)
    assert "commands are not run" in one_line_error("touch /tmp/x |")


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "aiff", "w64", "rf64"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_truncated(tmp_path, kind, share):
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE)
    soundfile.write(path, noise, SAMPLE_RATE)
    cut(path, share)
    assert "truncated or corrupt" in one_line_error(path)


@pytest.mark.parametrize("kind", ["wav", "aiff", "w64"])
def test_samples_after_a_chunk_of_odd_size(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, sine(0.5), SAMPLE_RATE)
    raw = path.read_bytes()
    if kind == "w64":  # a name of 16 bytes, a size that counts the head, filled up to 8
        first, head = 40, b"junk".ljust(16, b"\0") + (24 + 3).to_bytes(8, "little")
    else:
        first, head = 12, b"junk" + (3).to_bytes(4, "big" if kind == "aiff" else "little")
    path.write_bytes(raw[:first] + head + b"odd".ljust(8 if kind == "w64" else 4) + raw[first:])
    assert len(load_audio(path)) == SAMPLE_RATE // 2
    cut(path, 0.9)
    assert "its header promises" in one_line_error(path)


def test_not_audio(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("<html>404 not found</html>")
    assert "truncated or corrupt" in one_line_error(path)


@pytest.mark.parametrize("name", ["-a b.m4a", "a.MP4", "a.webm"])
def test_formats_that_libsndfile_lacks_say_how_to_convert(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    message = one_line_error(path)
    command = shlex.split(message.partition("is not supported: convert it, for example with: ")[2])
    assert command == ["ffmpeg", "-i", str(path), str(path.with_suffix(".flac"))]


def test_wav_of_0_samples(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), SAMPLE_RATE)
    assert "0 samples" in one_line_error(path)


@pytest.mark.parametrize("kind", ["wav", "flac"])
@pytest.mark.parametrize("rate", [1, 999, 1000])
def test_rates_that_only_a_wrong_header_has(tmp_path, rate, kind):
    """A second at 1 Hz would become 16,000 samples: kilobytes would fill the memory."""
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, sine(1.0, 1000), rate)
    if rate < 1000:
        assert f"its header says {rate} samples a second" in one_line_error(path)
    else:
        assert len(load_audio(path)) == SAMPLE_RATE


def test_too_short_to_resample(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1), 96000)
    assert "0 samples" in one_line_error(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 8000])
def test_nan_and_infinite_samples(tmp_path, bad, rate):
    path = tmp_path / "a.wav"
    samples = sine(rate=rate)
    samples[100] = bad
    soundfile.write(path, samples, rate, subtype="FLOAT")
    assert "NaN or infinite" in one_line_error(path)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 8000])
def test_samples_of_the_scale_of_integers(tmp_path, rate, channels):
    """As scipy and torchaudio save 16-bit samples that became floats; they would be a square wave.
    The second channel cancels the first in their mean."""
    path = tmp_path / "a.wav"
    samples_NC = np.stack([sine(rate=rate), -sine(rate=rate)][:channels], axis=1)
    soundfile.write(path, 32768 * samples_NC, rate, subtype="FLOAT")
    message = one_line_error(path)
    assert message.startswith(f"{path}: samples of up to 16384, which should be in ±1: divide")
    with pytest.raises(PamError) as raised:
        list(stream_audio(path))
    assert str(raised.value) == message
    with pytest.raises(PamError) as raised:
        write_channel(tmp_path / "b.flac", path, channels - 1)
    assert str(raised.value) == message and not (tmp_path / "b.flac").exists()
    soundfile.write(path, 3 * samples_NC, rate, subtype="FLOAT")  # too loud, but not integers
    assert np.abs(load_audio(path)).max() == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_wav_out_of_a_pipe_states_no_length(tmp_path, size):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(), SAMPLE_RATE)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data") + 4
    raw[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(raw)
    assert len(load_audio(path)) == SAMPLE_RATE == num_samples(path)
    check_audio(path)


def test_long_audio_is_checked_in_blocks(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    monkeypatch.setattr("pam.data.sound.BLOCK_SAMPLES", 1000)
    samples = sine(rate=8000)
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    check_audio(path)
    assert stated_seconds(path) == 1.0
    np.testing.assert_allclose(len(load_audio(path)), SAMPLE_RATE)
    samples[5500] = np.nan
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    assert "NaN or infinite" in one_line_error(path)
    tracemalloc.start()
    with pytest.raises(PamError):
        check_audio(path)
    assert tracemalloc.get_traced_memory()[1] < 30_000  # of the 32,000 bytes of samples
    tracemalloc.stop()


def test_mp3_without_a_stated_length_is_not_called_truncated(tmp_path):
    path = tmp_path / "a.mp3"
    loud = np.random.default_rng(0).normal(0, 0.3, 2 * SAMPLE_RATE)
    soundfile.write(path, np.concatenate([np.zeros(SAMPLE_RATE), loud]), SAMPLE_RATE)
    raw = path.read_bytes()
    tag = max(raw.find(b"Xing"), raw.find(b"Info"))
    assert tag > 0
    path.write_bytes(raw[raw.index(raw[:2], tag) :])  # from the second frame on
    assert abs(len(load_audio(path)) - 3 * SAMPLE_RATE) < 3000
    assert stated_seconds(path) == pytest.approx(3.0, abs=0.1)  # its frames are counted
    check_audio(path)


def test_write_flac_round_trip(tmp_path):
    path = tmp_path / "deep" / "a.flac"
    samples = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    write_flac(path, samples)
    once = load_audio(path)
    assert np.abs(once - samples).max() <= 2**-15
    write_flac(path, once)  # 16-bit samples come back as they were
    np.testing.assert_array_equal(load_audio(path), once)
    assert [file.name for file in path.parent.iterdir()] == ["a.flac"]
    assert (soundfile.info(path).subtype, soundfile.info(path).samplerate) == ("PCM_16", 16000)


def test_write_flac_clips_and_refuses(tmp_path, caplog):
    path = tmp_path / "a.flac"
    write_flac(path, np.array([1.0, -1.0], np.float32))
    assert caplog.messages == []
    for _ in range(2):
        write_flac(path, np.array([1.2, -2.0, 0.5], np.float32))
    np.testing.assert_allclose(load_audio(path), [1.0, -1.0, 0.5], atol=2**-15)
    assert caplog.messages == [f"{path}: its samples of up to 2 were clipped to ±1"]
    for bad in (np.zeros(0), np.array([np.nan]), np.array([0.0, -101.0])):
        with pytest.raises(PamError, match="samples"):
            write_flac(tmp_path / "b.flac", bad.astype(np.float32))
    assert not (tmp_path / "b.flac").exists()


def test_full_disk(tmp_path):
    part_of(tmp_path / "a.flac").symlink_to("/dev/full")
    with pytest.raises(PamError, match="the disk is full"):
        write_flac(tmp_path / "a.flac", sine().astype(np.float32))
    assert not list(tmp_path.iterdir())


def test_reading_audio_does_not_import_torch():
    code = "import sys, pam.data.audio, pam.data.datadir; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
