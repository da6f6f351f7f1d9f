"""Audio inside tar shards: read as a file is, packed, found again; damaged shards are refused."""

import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import SAMPLES, encode
from backports import tarfile
from imitations import encoded, write
from processes import locked_by_another
from small_dirs import text_files

from pam.bin import combine as combine_verb
from pam.bin import dump as dump_verb
from pam.bin import shard as shard_verb
from pam.bin import validate as validate_verb
from pam.config.made import PENDING
from pam.data import shards
from pam.data.audio import check_audio, is_native, load_audio, num_samples, stream_audio
from pam.data.concat import concat_entry
from pam.data.datadir import DataDir
from pam.data.opening import open_audio
from pam.data.pack import pack
from pam.data.raw import dump_audio
from pam.data.shards import file_of, is_member, open_member
from pam.data.utterances import AUDIO, read_inputs
from pam.data.webdataset import members, samples, writing_shard
from pam.errors import PamError
from pam.lock import alone_at

KINDS = [
    ("WAV", "PCM_16", "wav"), ("WAV", "PCM_24", "wav"), ("FLAC", "PCM_16", "flac"),
    ("OGG", "VORBIS", "ogg"), ("MP3", "MPEG_LAYER_III", "mp3"), ("AIFF", "PCM_16", "aiff"),
]  # fmt: skip
MEGABYTE = 1 << 20


def pack_members(shard, contents):
    with writing_shard(shard) as tar:
        return {name: tar.add(name, content) for name, content in contents.items()}


@pytest.mark.parametrize(("form", "subtype", "suffix"), KINDS, ids=str)
def test_a_member_is_read_as_its_file_is(tmp_path, form, subtype, suffix):
    content, file = encode(form, subtype), tmp_path / f"a.{suffix}"
    file.write_bytes(content)
    others = {f"x{n}.bin": b"?" * n for n in (0, 1, 511, 512, 513)}
    entry = pack_members(tmp_path / "s.tar", {**others, file.name: content})[file.name]
    assert is_member(entry) and file_of(entry) == tmp_path / "s.tar"
    np.testing.assert_array_equal(load_audio(entry), load_audio(file))
    np.testing.assert_array_equal(load_audio(entry, 0.2, 0.5), load_audio(file, 0.2, 0.5))
    np.testing.assert_array_equal(np.concatenate([*stream_audio(entry)]), load_audio(file))
    joined = concat_entry([(entry, 0.1, 0.2), (str(file), None, None)])
    assert len(load_audio(joined)) == 1600 + len(load_audio(file))
    assert num_samples(entry) == num_samples(file)
    assert is_native(entry, ("WAV", "FLAC")) == is_native(file, ("WAV", "FLAC"))
    check_audio(entry)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_truncated_audio_inside_a_whole_shard(tmp_path, form):
    content = encode(form)
    entry = pack_members(tmp_path / "s.tar", {"a.x": content[: len(content) // 2]})["a.x"]
    with pytest.raises(PamError, match=rf"^{re.escape(entry)}: .*: fetch or convert it again$"):
        check_audio(entry)


def test_members_of_other_tools(tmp_path):
    """GNU and pax headers, long names, folders: the entry is where the content begins."""
    content = encode("WAV")
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        name = "é" * 60 + "/" + "b" * 90 + ".wav" if form != tarfile.USTAR_FORMAT else "d/b.wav"
        write(tmp_path / "in.wav", content)
        (tmp_path / "folder").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "o.tar", "w", format=form) as tar:
            tar.add(tmp_path / "folder", "folder")
            tar.add(tmp_path / "in.wav", name)
        (found,) = members(tmp_path / "o.tar")
        assert (found.name, found.size, found.suffix) == (name, len(content), "wav")
        assert found.content() == content and found.key + ".wav" == name
        assert len(load_audio(found.entry)) == SAMPLES


@pytest.mark.parametrize("offset", [0, 5, 512, 1000, 10**17])
def test_an_offset_that_is_none(tmp_path, offset):
    pack_members(tmp_path / "s.tar", {"a.wav": encode("WAV"), "b.wav": encode("WAV")})
    entry = f"{tmp_path / 's.tar'}:{offset}"
    if offset == 512:
        assert len(load_audio(entry)) == SAMPLES
        return
    with pytest.raises(PamError, match=rf"^{re.escape(entry)}: no file of the shard begins"):
        load_audio(entry)
    assert validate_verb.audio_exists(entry).startswith(f"{entry}: no file of the shard")


def test_a_missing_a_truncated_and_a_replaced_shard(tmp_path):
    shard = tmp_path / "s.tar"
    entry = pack_members(shard, {"a.wav": encode("WAV")})["a.wav"]
    assert validate_verb.audio_exists(entry) is None and len(load_audio(entry)) == SAMPLES
    os.truncate(shard, 4000)
    with pytest.raises(PamError, match=r"truncated shard \('a.wav' has 40044 bytes, 3488 are th"):
        load_audio(entry)
    pack_members(shard, {"a.wav": encode("WAV", samples=100)})
    assert len(load_audio(entry)) == 100  # the open handle is not that of the old shard
    shard.unlink()
    with pytest.raises(PamError, match="no such audio file"):
        load_audio(entry)
    with pytest.raises(PamError, match="cannot be read .No such file"):
        open_member(entry)
    assert "no such audio file" in validate_verb.audio_exists(entry)


def special(kind):
    """A tar with a member that has no place in a shard."""

    def make(file):
        with tarfile.open(file, "w") as tar:
            names = {"absolute": "/etc/a.wav", "escape": "a/../../b.wav"}
            info = tarfile.TarInfo(names.get(kind, "a"))
            info.type = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE,
                         "device": tarfile.CHRTYPE}.get(kind, tarfile.REGTYPE)  # fmt: skip
            info.linkname = "/etc/passwd"
            tar.addfile(info)

    return make


def whole(file):
    with writing_shard(file) as tar:
        for name in ("a.wav", "b.wav"):
            tar.add(name, encode("WAV", samples=1000))


def cut(size):
    return lambda file: (whole(file), os.truncate(file, size))


def appended(content):
    def make(file):
        whole(file)
        with file.open("ab") as out:
            out.write(content)

    return make


def without_first_header(file):
    whole(file)
    with file.open("r+b") as out:
        out.seek(2560)
        out.write(b"#" * 512)


DAMAGED = {
    "link": (special("link"), "'a' is a link or no plain file: copy or pack it again"),
    "hard link": (special("hard"), "'a' is a link or no plain file"),
    "device": (special("device"), "'a' is a link or no plain file"),
    "absolute": (special("absolute"), "'/etc/a.wav': the name leaves the folder"),
    "escape": (special("escape"), "'a/../../b.wav': the name leaves the folder"),
    "cut in a member": (cut(1000), "truncated, compressed or no tar file"),
    "cut between members": (cut(2560), "truncated or damaged after byte 2560"),
    "cut in a header": (cut(2600), "truncated or damaged after byte 2560"),
    "cut in the end": (cut(5632), "truncated or damaged after byte 5120"),
    "a damaged header": (without_first_header, "truncated or damaged after byte 2560"),
    "joined": (appended(b"a second tar" * 100), "tars were joined: only the first is read"),
    "no tar": (lambda file: file.write_bytes(b"RIFF" * 1000), "truncated, compressed or no tar"),
    "empty": (lambda file: file.write_bytes(b""), "truncated, compressed or no tar"),
    "missing": (lambda file: None, "truncated, compressed or no tar file .*No such file"),
    "compressed": (lambda file: file.write_bytes(b"\x1f\x8b\x08" + bytes(2000)), "compressed"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_shards_give_one_line(tmp_path, name):
    make, message = DAMAGED[name]
    make(tmp_path / "s.tar")
    with pytest.raises(PamError, match=message) as raised:
        list(members(tmp_path / "s.tar"))
    assert "\n" not in str(raised.value) and str(raised.value).startswith(f"{tmp_path / 's.tar'}: ")


def test_a_whole_shard_is_listed(tmp_path):
    whole(tmp_path / "s.tar")
    assert [key for key, _ in samples(tmp_path / "s.tar")] == ["a", "b"]


def read_in_child(entries, expected, queue):
    queue.put([np.array_equal(load_audio(e), x) for e, x in zip(entries, expected, strict=True)])


def test_forked_processes_share_open_shards(tmp_path):
    """All read other places of one open file at the same time: no read moves another's place."""
    contents = {f"{n}.wav": encoded(0.3, 16000, n) for n in range(30)}
    entries = list(pack_members(tmp_path / "s.tar", contents).values())
    expected = [load_audio(entry) for entry in entries]  # the parent has opened the shard
    fork, orders = multiprocessing.get_context("fork"), [1, -1]
    queue = fork.SimpleQueue()
    children = [
        fork.Process(target=read_in_child, args=(entries[::way], expected[::way], queue))
        for way in orders
    ]
    for child in children:
        child.start()
    assert all(np.array_equal(load_audio(e), x) for e, x in zip(entries, expected, strict=True))
    for child in children:
        assert all(queue.get())
        child.join()


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_shards_are_open_at_once(tmp_path, monkeypatch):
    entries = [
        pack_members(tmp_path / f"{n}.tar", {"a.wav": encoded(0.1, 16000, n)})["a.wav"]
        for n in range(shards.SHARDS_OPEN + 9)
    ]
    shards._opened.cache_clear()
    before = open_files()
    held = open_member(entries[0])
    for entry in entries[1:]:
        open_audio(entry)
    assert open_files() <= before + shards.SHARDS_OPEN + 1
    assert held.readall()[:4] == b"RIFF"  # still open, though the cache has let go of it
    shards._opened.cache_clear()


# ---- packing


def corpus(tmp_path, count=6):
    """FLAC at 16 kHz, WAV at 8 kHz, and a concatenation."""
    files = text_files([f"spk-{n}.0" for n in range(count)])
    for number, utt in enumerate(files["wav.scp"]):
        kind, rate = ("FLAC", 16000) if number % 2 else ("WAV", 8000)
        write(tmp_path / f"in/{utt}.{kind.lower()}", encoded(0.5, rate, number, kind))
        files["wav.scp"][utt] = str(tmp_path / f"in/{utt}.{kind.lower()}")
    paths = list(files["wav.scp"].values())
    files["wav.scp"][f"spk-{count - 1}.0"] = concat_entry(
        [(paths[0], 0.1, 0.3), (paths[-1], None, None)]
    )
    DataDir(files).write(tmp_path / "data/set")
    return tmp_path / "data/set"


def loaded(folder):
    data = DataDir.read(folder)
    return {utt: load_audio(*data.audio(utt)) for utt in data.utterances}


def test_packing_keeps_everything_but_the_places(tmp_path, capsys):
    data, out = corpus(tmp_path), tmp_path / "packed/set"
    assert shard_verb.main([str(data), str(out), "--size", "20K"]) == 0
    before, after = DataDir.read(data).files, DataDir.read(out).files
    assert before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before if name != "wav.scp")
    for utt, audio in loaded(data).items():
        np.testing.assert_array_equal(loaded(out)[utt], audio)
    tars = sorted((out / "shards").iterdir())
    assert [tar.name for tar in tars] == [f"set-{n:06d}.tar" for n in range(len(tars))]
    assert len(tars) > 1 and all(tar.stat().st_size < 50_000 for tar in tars)
    key, found = next(samples(tars[0]))
    assert key == "spk-0_0" and [member.suffix for member in found] == ["wav", "txt", "json"]
    assert validate_verb.main([str(out), "--audio", "decode"]) == 0
    assert "valid, 6 utterances" in capsys.readouterr().out


def test_packed_audio_is_dumped_combined_and_trained_on(tmp_path):
    """Stages 2 and 3 for features that are computed in training, and what training reads."""
    data = corpus(tmp_path)
    pack(data, tmp_path / "packed/set", MEGABYTE)
    for folder in (data, tmp_path / "packed/set"):
        assert dump_audio(folder, folder.parents[1] / f"raw/{folder.parent.name}") == {}
    raw = [tmp_path / "raw" / name for name in ("data", "packed")]
    plain, packed = (DataDir.read(folder).files for folder in raw)
    assert plain["utt2num_samples"] == packed["utt2num_samples"]
    assert sum(map(is_member, packed["wav.scp"].values())) == 2  # mono at 16 kHz: not copied
    pack(raw[0], tmp_path / "raw2/set", MEGABYTE)  # audio of a dump is packed as well
    options = ["--train", tmp_path / "raw2/set", "--dev", raw[1], "--out", tmp_path / "combined"]
    assert combine_verb.main([str(option) for option in options]) == 0
    utts = sorted(plain["text"])
    for part in ("train", "dev"):
        inputs = read_inputs(tmp_path / "combined" / part, [], "online", utts)
        for utt in utts:
            expected = load_audio(plain["wav.scp"][utt])
            np.testing.assert_array_equal(inputs[utt][AUDIO].numpy(), expected)


def test_stage_2_accepts_a_packed_dump(tmp_path):
    """The settings of the dump are packed too, so a recipe goes on with the packed folder."""
    data = corpus(tmp_path)

    def dump(folder, *more):
        options = ["--data", data, "--out", folder, "--feats", "online", *more]
        return dump_verb.main([str(option) for option in options])

    assert dump(tmp_path / "dump/raw") == 0
    assert dump(tmp_path / "packed/raw", "--pending") == PENDING
    pack(tmp_path / "dump/raw/set", tmp_path / "packed/raw/set", MEGABYTE)
    assert dump(tmp_path / "packed/raw", "--pending") == 0
    packed = DataDir.read(tmp_path / "packed/raw/set")["wav.scp"].values()
    assert all(".tar:" in entry for entry in packed)


def test_a_second_dump_reads_what_has_changed(tmp_path):
    data = corpus(tmp_path)
    pack(data, tmp_path / "packed/set", MEGABYTE)
    folder, raw = tmp_path / "packed/set", tmp_path / "raw/set"
    dump_audio(folder, raw)
    line = (raw / "scan.jsonl").read_text()
    dump_audio(folder, raw)
    assert (raw / "scan.jsonl").read_text() == line
    soundfile.write(tmp_path / "in/spk-1.0.flac", np.full(1600, 0.1), 16000)
    pack(data, folder, MEGABYTE)
    dump_audio(folder, raw)
    assert DataDir.read(raw)["utt2num_samples"]["spk-1.0"] == "1600"


def test_a_second_packing_of_the_same_set_is_refused(tmp_path):
    data, out = corpus(tmp_path), tmp_path / "packed/set"
    with locked_by_another(out, "packing", alone_at):
        with pytest.raises(PamError, match="packed/set: another packing is running"):
            shard_verb.main([str(data), str(out)])
        assert not out.exists()
    assert shard_verb.main([str(data), str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_a_killed_packing_resumes(tmp_path, monkeypatch):
    data, out = corpus(tmp_path), tmp_path / "packed/set"
    pack(data, tmp_path / "whole/set", 20_000)
    written = []

    def killed(shard, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard.name)
        return write_shard(shard, *rest)

    write_shard = pack.__globals__["_write"]
    monkeypatch.setitem(pack.__globals__, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        pack(data, out, 20_000)
    assert not (out / "wav.scp").exists() and len(list((out / "shards").iterdir())) == 2
    (out / "shards" / written[1]).write_bytes(b"damaged")
    monkeypatch.setitem(pack.__globals__, "_write", write_shard)
    pack(data, out, 20_000)
    for tar in (out / "shards").iterdir():
        assert tar.read_bytes() == (tmp_path / "whole/set/shards" / tar.name).read_bytes()
    assert [p.name for p in (out / "shards").iterdir() if p.suffix != ".tar"] == []


def test_only_what_has_changed_is_packed_again(tmp_path):
    data, out = corpus(tmp_path), tmp_path / "packed/set"

    def packed(**changes):
        times = {tar.name: tar.stat().st_mtime_ns for tar in (out / "shards").glob("*")}
        DataDir(DataDir.read(data).files | changes).write(data)
        pack(data, out, 20_000)
        return [tar.name for tar in sorted((out / "shards").glob("*"))
                if times.get(tar.name) != tar.stat().st_mtime_ns]  # fmt: skip

    assert len(packed()) > 2
    assert packed() == []
    text = DataDir.read(data)["text"]
    assert packed(text=text | {"spk-0.0": "other words"}) == ["set-000000.tar"]
    old = len(list((out / "shards").iterdir()))
    pack(data, out, MEGABYTE)
    assert old > 1 == len(list((out / "shards").iterdir()))


def test_a_directory_is_not_packed_into_itself(tmp_path):
    data = corpus(tmp_path)
    with pytest.raises(PamError, match="is the directory that is packed: choose another"):
        pack(data, data / "../set", MEGABYTE)
    assert (data / "wav.scp").is_file()


def test_what_cannot_be_packed(tmp_path):
    files = text_files(["a.b", "a_b"])
    for utt in files["wav.scp"]:
        write(tmp_path / f"{utt}.wav", encoded(0.1, 16000, 0))
        files["wav.scp"][utt] = str(tmp_path / f"{utt}.wav")
    DataDir(files).write(tmp_path / "same")
    with pytest.raises(PamError, match="'a_b' is another key too: rename one id"):
        pack(tmp_path / "same", tmp_path / "out", MEGABYTE)
    for name, message in (("gone.wav", "No such file"), ("x.raw", "without a header")):
        DataDir(text_files(["a"]) | {"wav.scp": {"a": str(tmp_path / name)}}).write(
            tmp_path / "one"
        )
        with pytest.raises(PamError, match=message):
            pack(tmp_path / "one", tmp_path / "out", MEGABYTE)
    assert not list((tmp_path / "out").rglob("*.tar"))


@pytest.mark.parametrize("text", ["1", "0G", "1T", "G"])
def test_sizes_of_shards(text, capsys):
    assert shard_verb.size("3M") == 3 * MEGABYTE
    with pytest.raises(SystemExit):
        shard_verb.main(["a", "b", "--size", text])
    assert "write a size like 500M or 1G" in capsys.readouterr().err
