"""Audio files as other programs leave them: tags, joined streams, damage, padding, no header."""

import logging
import shlex
import struct

import numpy as np
import pytest
import soundfile
from audio_files import SAMPLES, STATED, encode, ogg_sum, sound

from pam.data import flac, mpeg
from pam.data.audio import check_audio, load_audio, num_samples, read_audio, stated_seconds
from pam.errors import PamError

MPEG_DELAY = 2400  # samples at 16 kHz that an encoder adds


def id3(size, footer=False):
    """A tag with a picture of `size` bytes, which may hold what looks like the start of a frame."""
    sizes = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    body = (b"\xff\xfb\x90\x64cover" * (size // 9 + 1))[:size]
    flags = bytes([0x10 if footer else 0])
    return b"ID3\4\0" + flags + sizes + body + (b"3DI\4\0" + flags + sizes if footer else b"")


def ape(size, header=True):
    def block(flags):
        numbers = struct.pack("<IIII", 2000, size + 32, 1, flags << 24)
        return b"APETAGEX" + numbers + bytes(8)

    return block(0xA0) * header + b"\1" * size + block(0x80)


ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")
MP3 = encode("MP3", samples=4 * SAMPLES)
VBR = encode("MP3", samples=4 * SAMPLES, bitrate_mode="VARIABLE", compression_level=0.5)
LONG = 4 * SAMPLES


def frames_of(content):
    """The frames of an MP3, that with the count first."""
    found = [0]
    while found[-1] < len(content):
        found.append(found[-1] + mpeg.parse_frame(content[found[-1] :][:4]).length)
    return [content[begin:end] for begin, end in zip(found, found[1:], strict=False)]


def damaged(content, first, count=1):
    """Frames from number `first` on are overwritten."""
    frames = frames_of(content)
    frames[first : first + count] = [b"\x55" * len(f) for f in frames[first : first + count]]
    return b"".join(frames)


def without_count(content):
    return b"".join(frames_of(content)[1:])


def chunk(name, body, pad=b"\0", order="<"):
    return name + struct.pack(f"{order}I", len(body)) + body + (pad if len(body) % 2 else b"")


WAV, FLAC, OGG = encode("WAV"), encode("FLAC"), encode("OGG")
U8 = encode("WAV", "PCM_U8", SAMPLES - 1)
INFO = chunk(b"LIST", b"INFOISFT\5\0\0\0test\0")
WAVS = {
    "id3 before": id3(1000) + WAV,
    "id3 of odd size": id3(1001) + WAV,
    "big-endian": encode("WAV", endian="BIG"),
    "odd chunk": WAV[:36] + chunk(b"note", b"odd") + WAV[36:],
    "odd chunk without padding": WAV[:36] + chunk(b"note", b"odd", b"") + WAV[36:],
    "odd chunk first, without padding": WAV[:12] + chunk(b"JUNK", b"odd", b"") + WAV[12:],
    "list after": WAV + INFO,
    "list after, cut": WAV + chunk(b"LIST", b"INFO" + bytes(5000))[:3000],
    "junk after": WAV + b"\x90\x91\x92",
    "more junk after": WAV + bytes(range(256)) * 10,
    "zeros after": WAV + bytes(30000),
    "id3 after": WAV + ID3V1,
    "two bytes too many": STATED["WAV"](WAV, lambda size: size + 2),
    "unknown, list before": STATED["WAV"](WAV[:36] + INFO + WAV[36:], lambda size: 0),
    "24 bits": encode("WAV", "PCM_24"),
    "float": encode("WAV", "FLOAT"),
    "next chunk unpadded": U8[: 44 + SAMPLES - 1] + INFO,
}


@pytest.mark.parametrize("name", WAVS)
def test_odd_wavs_are_whole(tmp_path, name):
    path = tmp_path / "a.wav"
    path.write_bytes(WAVS[name])
    samples = load_audio(path)
    check_audio(path)
    assert len(samples) == num_samples(path) and abs(len(samples) - SAMPLES) <= 1
    assert np.abs(samples - sound()[: len(samples)]).max() < 2**-6


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFDB])
@pytest.mark.parametrize("subtype", ["PCM_16", "GSM610", "IMA_ADPCM", "MS_ADPCM", "FLOAT"])
def test_wavs_out_of_a_pipe(tmp_path, size, subtype):
    path = tmp_path / "a.wav"
    path.write_bytes(encode("WAV", subtype))
    whole = load_audio(path)
    path.write_bytes(STATED["WAV"](path.read_bytes(), lambda _: size))
    piped = load_audio(path)
    assert 0 <= len(piped) - len(whole) <= 320  # GSM may be padded by a block
    np.testing.assert_array_equal(piped[: len(whole)], whole)
    np.testing.assert_array_equal(load_audio(path, 0.5, 1.0), whole[8000:16000])
    assert stated_seconds(path) == len(piped) / 16000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("id3, cut", (id3(1000) + WAV)[:30000]),
        ("odd chunk, cut", WAVS["odd chunk without padding"][:30000]),
        ("a second header", WAV + WAV),
        ("samples go on", STATED["WAV"](WAV, lambda size: size - 8000)),
        ("an mp3 follows", WAV + MP3),
    ],
)
def test_wavs_that_are_not_whole(tmp_path, name, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(PamError, match=r"promises \d+ (samples .*|bytes .*), it holds \d+"):
        load_audio(path)


def test_an_empty_wav_with_a_title_is_empty(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encode("WAV", samples=0) + INFO)
    with pytest.raises(PamError, match="a.wav: 0 samples"):
        load_audio(path)


# ---- MPEG: content → whether something is told
MP3S = {
    "plain": (MP3, False),
    "variable": (VBR, False),
    "no count": (without_count(MP3), False),
    "variable, no count": (without_count(VBR), False),
    "cover": (id3(300_000) + MP3, False),
    "cover, no count": (id3(300_000, footer=True) + without_count(VBR), False),
    "two tags": (id3(50) + id3(70) + VBR, False),
    "id3v1": (MP3 + ID3V1, False),
    "id3v1, no count": (without_count(VBR) + ID3V1, False),
    "ape": (MP3 + ape(700) + ID3V1, False),
    "ape, no count": (without_count(VBR) + ape(700, header=False), False),
    "junk after": (MP3 + b"\x90\x91\xff", False),
    "junk after, no count": (without_count(VBR) + b"\x90\x91\xff", False),
    "zeros after": (MP3 + bytes(3000), False),
    "a frame damaged": (damaged(MP3, 30), True),
    "a frame damaged, no count": (damaged(without_count(VBR), 30), False),
    "count + 1": (STATED["MP3"](MP3, lambda count: count + 1), True),
    "count too small": (STATED["MP3"](VBR, lambda count: count // 3), True),
    "no number": (STATED["MP3"](VBR, lambda count: 0), False),
    "last frame cut, no count": (without_count(VBR)[:-20], True),
}


def vbri(content):
    """The count as Fraunhofer's encoders write it."""
    head = frames_of(encode("MP3", samples=SAMPLES, rate=16000))[0]
    frame = bytearray(len(head))
    frame[:4] = head[:4]
    count = len(frames_of(content)) - 1
    struct.pack_into(">4sHHHII", frame, 36, b"VBRI", 1, 0, 75, len(content), count)
    return bytes(frame) + without_count(content)


MP3S["vbri"] = vbri(VBR), False


@pytest.mark.parametrize("name", MP3S)
def test_mp3s_are_read_to_the_end(tmp_path, name):
    content, told = MP3S[name]
    path = tmp_path / "a.mp3"
    path.write_bytes(content)
    reading = read_audio(path)
    check_audio(path)
    assert abs(len(reading.samples) - LONG) <= MPEG_DELAY
    assert abs(num_samples(path) - len(reading.samples)) <= 2 * 576
    assert bool(reading.notes) == told, reading.notes
    tail = reading.samples[-12000:-4000]
    assert tail.std() > 0.1  # the sine goes on: it is no silence that fills up
    part = load_audio(path, 3.0, 4.0)
    np.testing.assert_allclose(part, reading.samples[48000:64000], atol=0.02)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_frames_are_counted_as_the_decoder_does(tmp_path, rate, channels):
    """MPEG 1, 2 and 2.5; the plain reference is what libsndfile decodes."""
    path = tmp_path / "a.mp3"
    noise = np.random.default_rng(0).normal(0, 0.1, (2 * rate, channels))
    noise[: rate // 2] = 0  # a variable rate
    soundfile.write(path, noise, rate, bitrate_mode="VARIABLE", compression_level=0.3)
    content = path.read_bytes()
    found = mpeg.walk(content, 0, len(content))
    assert (found.rate, found.promised, found.junk, found.tail) == (rate, found.frames, 0, 0)
    samples = found.frames * found.samples_per_frame
    assert 2 * rate <= samples <= 2 * rate + 3 * 1152
    path.write_bytes(without_count(content))
    assert samples - 529 <= load_audio(path).size * rate / 16000 + 1 <= samples + 2
    with soundfile.SoundFile(path) as file:  # what libsndfile alone would have given
        assert file.channels == channels


REFUSED_MP3S = {
    "cut": MP3[: len(MP3) // 2],
    "ten frames damaged": damaged(MP3, 30, 10),
    "ten frames damaged, no count": damaged(without_count(VBR), 30, 10),
    "zeros inside": MP3[:4000] + bytes(4000) + MP3[8000:],
    "zeros inside, no count": without_count(VBR)[:4000] + bytes(4000) + without_count(VBR)[8000:],
    "zeros instead of the end": without_count(VBR)[:5000] + bytes(8000),
    "count too large": STATED["MP3"](MP3, lambda count: count * 2),
    "second file cut": MP3 + MP3[: len(MP3) // 2],
    "first file cut": MP3[: len(MP3) // 2] + MP3,
    "another rate follows": MP3 + encode("MP3", samples=LONG, rate=44100),
    "a wav follows": MP3 + WAV,
    "an ogg follows": MP3 + OGG,
}


@pytest.mark.parametrize("name", REFUSED_MP3S)
def test_mp3s_that_are_not_whole(tmp_path, name):
    path = tmp_path / "a.mp3"
    path.write_bytes(REFUSED_MP3S[name])
    with pytest.raises(PamError, match=r"a.mp3: truncated or corrupt audio \(.*\d+"):
        load_audio(path)
    with pytest.raises(PamError, match=r"a.mp3: "):
        check_audio(path)


@pytest.mark.parametrize("first", [MP3, VBR, without_count(VBR), id3(99) + MP3 + ID3V1])
@pytest.mark.parametrize("second", [MP3, without_count(VBR), id3(99) + VBR])
def test_joined_mp3s_are_read_to_the_end(tmp_path, first, second):
    path = tmp_path / "a.mp3"
    path.write_bytes(first + second)
    assert abs(len(load_audio(path)) - 2 * LONG) <= 2 * MPEG_DELAY
    part = load_audio(path, 6.0, 7.0)
    assert len(part) == 16000 and part.std() > 0.1


def test_a_count_for_joined_files_is_that_of_all(tmp_path):
    """Programs that join files count the inner frames that hold counts as sound."""
    frames = 2 * len(frames_of(MP3)) - 1
    path = tmp_path / "a.mp3"
    at = max(MP3.find(b"Xing"), MP3.find(b"Info")) + 8
    path.write_bytes(MP3[:at] + struct.pack(">I", frames) + MP3[at + 4 :] + MP3)
    assert abs(len(load_audio(path)) - 2 * LONG) <= 2 * MPEG_DELAY


@pytest.mark.parametrize("stated", ["size", "unknown"])
def test_mp3_in_a_wav(tmp_path, stated):
    body = without_count(VBR)
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16000, 4000, 1, 0, 12, 1, 2, 576, 1, 0)
    content = b"WAVE" + chunk(b"fmt ", form) + chunk(b"data", body)
    content = b"RIFF" + struct.pack("<I", len(content)) + content
    if stated == "unknown":
        content = STATED["WAV"](content, lambda _: 0xFFFFFFFF)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert abs(len(load_audio(path)) - LONG) <= MPEG_DELAY
    path.write_bytes(content[: len(content) // 2])
    if stated == "size":
        with pytest.raises(PamError, match="promises"):
            load_audio(path)


# ---- Ogg and FLAC


def ogg_pages(content):
    pages = []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        pages.append(content[:size])
        content = content[size:]
    return pages


def later(page, samples):
    """A page whose granule position is higher."""
    page = bytearray(page)
    position = struct.unpack_from("<q", page, 6)[0]
    if position > 0:
        struct.pack_into("<q", page, 6, position + samples)
        struct.pack_into("<I", page, 22, 0)
        struct.pack_into("<I", page, 22, ogg_sum(page))
    return bytes(page)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg(tmp_path, subtype):
    content = encode("OGG", subtype, 3 * SAMPLES)
    pages = ogg_pages(content)
    whole = {
        "junk after": content + b"\x90\x91",
        "from a stream that began before": b"".join(later(page, 500_000) for page in pages),
    }
    path = tmp_path / "a.ogg"
    for made in whole.values():
        path.write_bytes(made)
        assert abs(len(load_audio(path)) - 3 * SAMPLES) <= 320 and not read_audio(path).notes
    path.write_bytes(3 * content)
    assert abs(len(load_audio(path)) - 9 * SAMPLES) <= 960
    once = soundfile.read(path)[0]
    np.testing.assert_allclose(load_audio(path, 4.0, 5.0), once[4000:20000], atol=0.02)
    path.write_bytes(b"".join(pages[:-1]))  # cut between two pages
    assert "no page is marked as the last" in read_audio(path).notes[0]
    lost = {"a hole": b"".join(pages[:3] + pages[5:]), "a wav follows": content + WAV}
    lost["another rate follows"] = content + encode("OGG", "VORBIS", SAMPLES, 8000)
    lost["cut"] = content[:-100]
    for name, made in lost.items():
        path.write_bytes(made)
        with pytest.raises(PamError, match=r"a.ogg: "):
            print(name, len(load_audio(path)))


def test_flac(tmp_path):
    unknown = STATED["FLAC"](FLAC, lambda _: 0)
    whole = {
        "unknown": unknown,
        "unknown, a tag before": id3(500) + unknown,
        "unknown, a tag after": unknown + ID3V1,
        "a tag before": id3(500) + FLAC,
        "a tag after": FLAC + ID3V1,
        "junk after": FLAC + b"\x90\x91\x92",
    }
    path = tmp_path / "a.flac"
    for name, made in whole.items():
        path.write_bytes(made)
        samples = load_audio(path)
        check_audio(path)
        assert len(samples) == SAMPLES == num_samples(path), name
        assert np.abs(samples - sound()).max() < 2**-14
        np.testing.assert_array_equal(load_audio(path, 0.25, 0.75), samples[4000:12000])
    path.write_bytes(unknown + FLAC)
    np.testing.assert_array_equal(load_audio(path, 1.0, 2.0), np.r_[samples, samples][16000:32000])
    for made in (unknown[: len(unknown) // 2], unknown + FLAC[:-100], FLAC[:9000] + FLAC[9100:]):
        path.write_bytes(made)
        with pytest.raises(PamError, match=r"a.flac: truncated or corrupt"):
            load_audio(path)


@pytest.mark.parametrize("samples", [1, 15, 4095, 4096, 4097, 40960, 131072, 600_000])
@pytest.mark.parametrize("rate", [8000, 16000, 37800, 44100])
def test_the_last_flac_frame_knows_the_length(samples, rate):
    content = encode("FLAC", samples=samples, rate=rate)
    assert flac.counted(content, 0, len(content)) == samples == flac.stated(content[:42])
    half = flac.with_total(content, samples // 2)
    assert flac.counted(half, 0, len(half)) == samples


# ---- channels, names, messages


@pytest.mark.parametrize("form", ["WAV", "MP3"])
def test_channels_that_cancel_each_other(tmp_path, caplog, form):
    path = tmp_path / f"antiphase.{form.lower()}"
    wave = sound()
    soundfile.write(path, np.stack([0.9 * wave, -0.95 * wave], axis=1), 16000)
    with caplog.at_level(logging.WARNING):
        samples = load_audio(path)
        load_audio(path)
    assert samples[4000:16000].std() == pytest.approx(0.95 * wave[4000:16000].std(), rel=0.05)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{path}: its channels cancel each other: only channel 2 is used"]


def test_channels_that_do_not_cancel_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    wave = sound()
    for other in (0 * wave, wave, -0.5 * wave, sound(seed=1) - wave):
        soundfile.write(path, np.stack([wave, other], axis=1), 16000, subtype="FLOAT")
        reading = read_audio(path)
        assert not reading.notes
        np.testing.assert_allclose(reading.samples, (wave + other) / 2, atol=1e-6)
    soundfile.write(path, np.zeros((100, 2)), 16000)
    assert not load_audio(path).any() and not read_audio(path).notes
    soundfile.write(path, np.stack([wave, *[0 * wave] * 39], axis=1), 16000)  # one of 40 is on
    assert not read_audio(path).notes


@pytest.mark.parametrize("name", ["a b.raw", "a.RAW", "a.pcm", "a.s16"])
def test_files_without_a_header(tmp_path, name):
    path = tmp_path / name
    path.write_bytes((10000 * sound()).astype("<i2").tobytes())
    for function in (load_audio, check_audio, num_samples, stated_seconds):
        with pytest.raises(PamError) as error:
            function(path)
        message = str(error.value)
        assert message.startswith(f"{path}: no header") and "\n" not in message
    command = shlex.split(message.partition("convert it, for example with: ")[2])
    assert command[-3:] == ["-i", str(path), str(path.with_suffix(".flac"))]
    path.write_bytes(WAV)  # a header, whatever its name says
    assert len(load_audio(path)) == SAMPLES


@pytest.mark.parametrize("name", ["a.au", "a.snd", "a.gsm", "a.vox", "a.mp3", "a.wav", "a.xyz"])
def test_a_page_of_text_is_no_audio(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"<html>404 not found</html>" * 100)
    with pytest.raises(PamError, match="truncated or corrupt"):
        load_audio(path)


def test_silence_of_gsm_repeats_itself(tmp_path):
    path = tmp_path / "a.gsm"
    soundfile.write(path, np.zeros(16000), 8000, format="RAW", subtype="GSM610")
    reading = read_audio(path)
    assert abs(len(reading.samples) - 32000) <= 320 and "no length" in reading.notes[0]


def test_names_that_are_not_utf8(tmp_path):
    path = tmp_path / b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    path.write_bytes(WAV)
    assert len(load_audio(path)) == SAMPLES


def test_a_note_is_logged_once_for_each_file(tmp_path, caplog):
    for name in ("a.mp3", "b.mp3"):
        (tmp_path / name).write_bytes(STATED["MP3"](MP3, lambda count: count + 1))
    with caplog.at_level(logging.WARNING):
        for name in ("a.mp3", "b.mp3", "a.mp3"):
            load_audio(tmp_path / name)
    told = [record.getMessage() for record in caplog.records]
    assert [message.partition(": ")[0] for message in told] == [
        str(tmp_path / name) for name in ("a.mp3", "b.mp3")
    ]
    assert all("promises" in message and "holds" in message for message in told)


@pytest.mark.parametrize("start", range(256))
def test_whatever_looks_like_a_flac_frame_is_no_traceback(start):
    """Compressed audio holds any bytes, those of a frame's beginning among them."""
    head = bytes([0xFF, 0xF8, 0xC9, 0x18, start]) + bytes(12)
    begins_no_number = 0x80 <= start < 0xC0 or start == 0xFF
    assert not begins_no_number or flac._end_of_frame(head, 4096) is None
    flac._end_of_frame(head, 4096)
