"""Every format that libsndfile writes, whole, cut, joined, of unknown or wrong length.

Either all of the audio is read or the file is refused: never is a part of it lost without a word.
"""

import io
import struct

import numpy as np
import pytest
import soundfile

from pam.data.audio import check_audio, load_audio, num_samples, read_audio, stated_seconds
from pam.errors import UserError

SAMPLES = 20000
ALL, TWICE, REFUSED = "all", "twice", "refused"
NOTED = "all, noted"  # its header is wrong, or states nothing
PART = "part, noted"  # states no length: a cut cannot be seen, which is said
LONGER = "longer, noted"  # states no length: the second file's header is read as samples
FEW = 800  # samples that a codec may add or drop at the ends


def sound(samples=SAMPLES, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.02, samples)
    return 0.2 * np.sin(np.arange(samples) / 5) + noise


def encode(form, subtype=None, samples=SAMPLES, rate=16000, **options):
    out = io.BytesIO()
    soundfile.write(out, sound(samples), rate, format=form, subtype=subtype, **options)
    return out.getvalue()


def edited(content, at, form, change):
    """`content` with the number at byte `at` replaced by `change(number)`."""
    number = struct.unpack_from(form, content, at)[0]
    out = bytearray(content)
    limit = 256 ** struct.calcsize(form) - 1
    struct.pack_into(form, out, at, min(change(number), limit))
    return bytes(out)


# ---- where each format states its length


def after(name, offset, form):
    return lambda content, change: edited(content, content.index(name) + offset, form, change)


def at(place, form):
    return lambda content, change: edited(content, place, form, change)


def nist(content, change):
    at = content.index(b"sample_count -i ") + 16
    end = content.index(b"\n", at)
    number = b"%d" % change(int(content[at:end]))
    out = content[:at] + number + content[end:]
    head = out.index(b"end_head") + 9
    return out[:head] + out[head + max(len(out) - len(content), 0) :]


def voc(content, change):
    number = change(int.from_bytes(content[27:30], "little"))
    return content[:27] + min(number, 0xFFFFFF).to_bytes(3, "little") + content[30:]


def everywhere(content, change):
    old, new = (struct.pack("<I", min(n, 0xFFFFFFFF)) for n in (SAMPLES, change(SAMPLES)))
    return content[:512].replace(old, new) + content[512:]


def sds(content, change):
    number = min(change(SAMPLES), (1 << 21) - 1)
    return content[:10] + bytes(number >> shift & 127 for shift in (0, 7, 14)) + content[13:]


def flac(content, change):
    rest, number = divmod(int.from_bytes(content[18:26]), 1 << 36)
    number = min(change(number), (1 << 36) - 1)
    return content[:18] + (rest << 36 | number).to_bytes(8) + content[26:]


def xing(content, change):
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    return edited(content, at, ">I", change)


def ogg_sum(page):
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 1 << 31 else 0)) & 0xFFFFFFFF
    return value


def ogg(content, change):
    at = content.rindex(b"OggS")
    page = bytearray(content[at:])
    number = struct.unpack_from("<q", page, 6)[0]
    struct.pack_into("<qII", page, 6, min(change(number), 1 << 40), *struct.unpack_from("<II", page, 14))
    struct.pack_into("<I", page, 22, 0)
    struct.pack_into("<I", page, 22, ogg_sum(page))
    return content[:at] + bytes(page)


STATED = {
    "AIFF": after(b"SSND", 4, ">I"), "AU": at(8, ">I"), "AVR": at(26, ">I"),
    "CAF": after(b"data", 4, ">Q"), "FLAC": flac, "SVX": after(b"BODY", 4, ">I"),
    "MAT4": after(b"wavedata", -12, "<I"), "MAT5": everywhere, "MPC2K": everywhere, "MP3": xing,
    "OGG": ogg, "RF64": after(b"ds64", 16, "<Q"), "SDS": sds, "VOC": voc,
    "W64": after(b"data\xf3", 16, "<Q"), "WAV": after(b"data", 4, "<I"),
    "WAVEX": after(b"data", 4, "<I"), "NIST": nist, "WVE": at(18, ">I"),
}  # fmt: skip

MADE = {
    "whole": lambda form, content: content,
    "cut": lambda form, content: content[: len(content) * 6 // 10],
    "joined": lambda form, content: content + content,
    "unknown": lambda form, content: STATED[form](content, lambda number: 0),
    "endless": lambda form, content: STATED[form](content, lambda number: 1 << 63),
    "too little": lambda form, content: STATED[form](content, lambda number: number // 2),
    "too much": lambda form, content: STATED[form](content, lambda number: number * 2),
}
#          whole, cut,    joined, unknown, endless, too little, too much
NO_LENGTH = (NOTED, PART, LONGER, None, None, None, None)
CHUNKS = (ALL, REFUSED, REFUSED, ALL, ALL, REFUSED, REFUSED)
EXPECTED = dict.fromkeys(["WAV", "WAVEX", "AIFF", "CAF", "SVX", "RF64", "W64", "AU"], CHUNKS)
EXPECTED |= dict.fromkeys(["PAF", "PVF", "IRCAM", "XI"], NO_LENGTH)
CHOICES = [(form, case) for form in soundfile.available_formats() for case in MADE]


def outcome(path):
    """What reading gives: all samples, those of two files, or a refusal."""
    try:
        reading = read_audio(path)
    except UserError as error:
        return f"{REFUSED}: {error}"
    return f"{len(reading.samples)} {num_samples(path)} {reading.notes}"


if __name__ == "__main__":
    import tempfile, os
    d = tempfile.mkdtemp()
    for form in soundfile.available_formats():
        if form in ("RAW", "SD2", "HTK"):
            continue
        c = encode(form)
        for case in MADE:
            if case in ("unknown", "endless", "too little", "too much") and form not in STATED:
                continue
            p = f"{d}/x.{form.lower()}"
            open(p, "wb").write(MADE[case](form, c))
            print(form, case, outcome(p).replace(d, ""), sep=" | ")
