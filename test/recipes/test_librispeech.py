"""The LibriSpeech recipe on an imitation of the corpus, with what goes wrong in real copies."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from backports import tarfile

from pam.data.datadir import DataDir
from pam.data.scp import read_text_file
from pam.errors import PamError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/librispeech"
PARTS = ["train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other"]


def write_flac(file: Path, seconds: float = 0.2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(file.name))
    soundfile.write(file, 0.1 * generator.standard_normal(round(16000 * seconds)), 16000)


def write_part(corpus: Path, part: str, speakers: tuple[int, ...] = (84, 1272)) -> Path:
    """A part as it is unpacked: two speakers, a chapter each, six utterances a chapter."""
    for speaker in speakers:
        chapter = corpus / part / f"{speaker}/121550"
        lines = []
        for number in range(6):
            utt = f"{speaker}-121550-{number:04d}"
            write_flac(chapter / f"{utt}.flac")
            lines.append(f"{utt} IT'S NUMBER {number} OF {part.upper()}\n")
        (chapter / f"{speaker}-121550.trans.txt").write_text("".join(lines))
        for name in (f"._{speaker}-121550.trans.txt", f"._{utt}.flac"):  # of a copy by macOS
            (chapter / name).write_bytes(b"\0\x05\x16\x07\xff")
    return corpus / part


def prepare(*options: str | Path) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, RECIPE / "local/prepare.py", *options], capture_output=True, text=True
    )
    return process.returncode, process.stdout + process.stderr


def prepare_dev(corpus: Path, out: Path, *options: str) -> tuple[DataDir, str]:
    status, output = prepare(
        "--corpus", corpus, "--out", out, "--parts", "dev-clean", "--size", "long", *options
    )
    assert status == 0, output
    return DataDir.read(out / "librispeech_dev_clean"), output


def test_a_part(tmp_path):
    corpus = tmp_path / "LibriSpeech"
    write_part(corpus, "dev-clean")
    data, output = prepare_dev(corpus, tmp_path / "data")
    assert "WARNING: dev-clean: expected 2703 utterances, found 12 (-2691)" in output
    assert "left out" not in output and len(data) == 12
    assert data["text"]["84-121550-0003"] == "it's number 3 of dev-clean"
    assert data["utt2spk"]["1272-121550-0000"] == "1272"
    assert set(data["utt2task"].values()) == {"asr_clean"}
    assert all(Path(path).is_file() for path in data["wav.scp"].values())
    data, _ = prepare_dev(tmp_path, tmp_path / "data", "--size", "tiny")  # the folder above
    assert len(data) == 8 and set(data["utt2spk"].values()) == {"84", "1272"}


def test_what_is_wrong_is_left_out_and_named(tmp_path):
    part = write_part(tmp_path / "LibriSpeech", "dev-clean")
    chapter = part / "84/121550"
    missing = chapter / "84-121550-0001.flac"
    missing.unlink()
    write_flac(chapter / "84-121550-0009.flac")
    transcript = chapter / "84-121550.trans.txt"
    lines = transcript.read_text().splitlines()
    lines[2] = "84-121550-0002 "
    lines[3] = "84-121550-0003  CAFÉ  NAÏVE\u3000“QUOTED”"
    transcript.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())  # as some editors save it
    data, output = prepare_dev(tmp_path / "LibriSpeech", tmp_path / "data")
    assert f"dev-clean: 1 left out, no audio file: {missing}" in output
    assert "dev-clean: 1 left out, no text in its line: 84-121550-0002" in output
    assert "1 left out, audio without a transcript: " in output and "0009.flac" in output
    assert "expected 2703 utterances, found 10" in output and len(data) == 10
    assert data["text"]["84-121550-0003"] == "café naïve “quoted”"
    assert data["text"]["84-121550-0000"] == "it's number 0 of dev-clean"


def test_a_missing_part_is_an_error(tmp_path):
    out = ["--out", tmp_path / "data"]
    status, output = prepare(*out)
    assert status == 1 and output.startswith("error: LIBRISPEECH is not set")
    status, output = prepare("--corpus", tmp_path, *out, "--parts", "test-clean")
    folder = tmp_path / "LibriSpeech/test-clean"
    assert status == 1 and f"{folder}: no such folder: local/download.py" in output
    assert "leave librispeech_test_clean out of --test_sets" in output
    for part, option in (("dev-other", "--dev_sets"), ("train-clean-100", "--train_sets")):
        status, output = prepare("--corpus", tmp_path, *out, "--parts", part)
        assert status == 1 and f"{part.replace('-', '_')} out of {option}" in output
    folder.mkdir(parents=True)
    status, output = prepare("--corpus", tmp_path, *out, "--parts", "test-clean")
    assert status == 1 and "no SPK/CHAP/*.trans.txt with audio" in output


def test_lines_that_are_no_utterance(tmp_path):
    part = write_part(tmp_path, "dev-clean")
    transcript = part / "84/121550/84-121550.trans.txt"
    good = transcript.read_text()
    transcript.write_text(good + "84-121550-0000 AGAIN\n\n84-121550-0009 SPLIT\u2028LINE\x07\n")
    write_flac(part / "84/121550/84-121550-0009.flac")
    data, output = prepare_dev(tmp_path, tmp_path / "data")
    assert "dev-clean: 1 left out, the same id twice: 84-121550-0000" in output
    listed = (tmp_path / "data/librispeech_dev_clean/left_out.log").read_text()
    assert listed == "the same id twice\t84-121550-0000\n"
    assert data["text"]["84-121550-0000"] == "it's number 0 of dev-clean"
    assert data["text"]["84-121550-0009"] == "split line"
    transcript.write_bytes(good.encode() + b"84-121550-0009 CAF\xc9\n")
    status, output = prepare("--corpus", tmp_path, "--out", tmp_path / "x", "--parts", "dev-clean")
    assert status == 1 and f"error: {transcript}:7: not UTF-8 (byte 0xc9)" in output


def run(corpus: Path, out: Path, *options: str) -> tuple[int, str]:
    """Stages 1 and 2 by run.sh."""
    process = subprocess.run(
        [RECIPE / "run.sh", "--stop_stage", "2", "--feats", "online", "--python", sys.executable]
        + [f"--datadir={out}/data", f"--dumpdir={out}/dump", "--nj", "1", *options],
        env={"LIBRISPEECH": str(corpus), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    return process.returncode, process.stdout + process.stderr


def test_only_the_parts_that_are_asked_for(tmp_path):
    for part in ("train-other-500", "dev-clean"):
        write_part(tmp_path / "LibriSpeech", part, (84,))
    sets = ["--train_sets=librispeech_train_other_500", "--dev_sets=librispeech_dev_clean"]
    status, output = run(tmp_path, tmp_path, *sets, "--test_sets=")
    assert status == 0, output
    names = {folder.name for folder in (tmp_path / "dump/raw").iterdir()}
    assert names == {"librispeech_train_other_500", "librispeech_dev_clean"}


def test_who_fetched_the_corpus_is_no_setting_of_the_data(tmp_path):
    for part in PARTS:
        write_part(tmp_path, part, (84,))
    assert run(tmp_path, tmp_path, "--download", "true")[0] == 0
    status, output = run(tmp_path, tmp_path)
    assert status == 0 and len(re.findall("complete: .*/raw/librispeech_", output)) == 5, output


def test_stages_1_and_2(tmp_path):
    for part in PARTS:
        write_part(tmp_path / "LibriSpeech", part, (1000 + PARTS.index(part),))
    status, output = run(tmp_path / "LibriSpeech", tmp_path)
    assert status == 0, output
    for number, part in enumerate(PARTS):
        raw = tmp_path / "dump/raw" / f"librispeech_{part.replace('-', '_')}"
        assert DataDir.read(raw)["utt2spk"][f"{1000 + number}-121550-0000"] == str(1000 + number)
        assert read_text_file(raw / "utt2num_samples") == {
            f"{1000 + number}-121550-{n:04d}": "3200" for n in range(6)
        }


@pytest.fixture
def download(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    spec = importlib.util.spec_from_file_location(
        "librispeech_download", RECIPE / "local/download.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_download(tmp_path, monkeypatch, download):
    served, corpus = tmp_path / "served", tmp_path / "corpus"
    write_part(tmp_path / "made/LibriSpeech", "dev-clean")
    served.mkdir()
    archive = served / "dev-clean.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "made/LibriSpeech", "LibriSpeech")
    monkeypatch.setitem(download.MD5, "dev-clean", hashlib.md5(archive.read_bytes()).hexdigest())
    arguments = [str(corpus), "dev-clean", "--url", served.as_uri()]
    download.main(arguments)
    data, _ = prepare_dev(corpus, tmp_path / "data")
    assert len(data) == 12
    assert sorted(path.name for path in corpus.iterdir()) == ["LibriSpeech"]
    archive.unlink()
    download.main(arguments)  # it is there
    download.main([str(corpus / "LibriSpeech"), *arguments[1:]])  # named itself


def test_download_refuses(tmp_path, download):
    (tmp_path / "dev-clean.tar.gz").write_bytes(b"another file")
    with pytest.raises(PamError, match="md5 .* expected 42e2234"):
        download.main([str(tmp_path / "x"), "dev-clean", "--url", tmp_path.as_uri()])
    with pytest.raises(PamError, match="did you mean 'dev-clean'"):
        download.main([str(tmp_path), "dev-claen"])
    with pytest.raises(PamError, match="LIBRISPEECH is not set"):
        download.main([""])
