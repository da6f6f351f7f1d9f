"""Audio files made on the spot in every format that libsndfile writes, and with wrong headers."""

import io
import struct

import numpy as np
import soundfile

SAMPLES = 20000


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
    number = (b"%d" % change(int(content[at:end]))).ljust(end - at)
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
    struct.pack_into(
        "<qII", page, 6, min(change(number), 1 << 40), *struct.unpack_from("<II", page, 14)
    )
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
