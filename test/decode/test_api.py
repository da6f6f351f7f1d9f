"""One clip through a model whose encoders are toys of the contract's shape."""

import gc
import io
import json
import tempfile
import threading
import time
from collections import UserDict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from toys import tone

from pam.bin import transcribe
from pam.data.audio import load_audio
from pam.data.sound import Audio
from pam.decode import answering, api
from pam.decode.api import SpeechLLM
from pam.decode.audio_input import TooLongError, as_clip, load_input, stream_content, stream_input
from pam.decode.decoder import Decoder
from pam.decode.request import Answered
from pam.decode.stream import Stream
from pam.errors import PamError


@pytest.fixture
def command(speech_llm, monkeypatch):
    """Runs transcribe with that model."""
    monkeypatch.setattr(SpeechLLM, "from_pretrained", classmethod(lambda *args: speech_llm))
    options = ["--exp", "exp/x", "--prompt", "Write it down.", "--max_new_tokens", "4"]
    return lambda *files: transcribe.main([*options, *map(str, files)])


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000, subtype="FLOAT")
    return path


def test_answer_has_text_expert_and_posteriors(speech_llm, wav):
    answer = speech_llm.generate(wav, "How many speakers?", max_new_tokens=5)
    assert list(answer.posteriors) == speech_llm.model.tasks
    assert sum(answer.posteriors.values()) == pytest.approx(1)
    assert answer.expert == max(answer.posteriors, key=answer.posteriors.get)


def test_a_file_and_its_samples_give_the_same(speech_llm, wav):
    prompt = "Write it down."
    assert speech_llm.generate(tone(16000), prompt, max_new_tokens=5) == speech_llm.generate(
        str(wav), prompt, max_new_tokens=5
    )


def test_other_rates_are_resampled():
    clip = as_clip(tone(8000).astype(np.float64), 8000)
    assert clip.dtype == np.float32
    assert len(clip) == 16000
    np.testing.assert_allclose(clip[500:-500], tone(16000)[500:-500], atol=0.01)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.float64, np.longdouble, torch.bfloat16])
def test_other_kinds_of_floating_point(dtype, rate):
    """soxr and numpy read some of them only."""
    samples = tone(8000)
    is_torch = isinstance(dtype, torch.dtype)
    other = torch.from_numpy(samples).to(dtype) if is_torch else samples.astype(dtype)
    clip = as_clip(other, rate)
    assert clip.dtype == np.dtype("float32") and clip.dtype.isnative
    np.testing.assert_allclose(clip, as_clip(samples, rate), atol=4e-3)


def test_samples_that_resampling_leaves_nothing_of():
    with pytest.raises(PamError, match="audio array: 1 samples at 48000 Hz: too short"):
        as_clip(np.zeros(1), 48000)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ("no/such.wav", "no/such.wav: no such audio file"),
        (np.zeros((2, 16000), np.float32), "one dimension"),
        (np.zeros(16000, np.int16), "floating-point"),
        (np.zeros((16000, 2), np.float32), "one dimension .average channels"),
        (np.zeros(0, np.float32), "empty"),
        (np.full(16000, 1e300), "infinite"),
        (32768 * tone(16000), r"samples of up to \d+.*, which should be in ±1: divide"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.zeros(100, np.float32), "too short"),
    ],
)
def test_bad_audio_is_one_line(speech_llm, audio, message):
    with pytest.raises(PamError, match=message) as caught:
        speech_llm.generate(audio, "Write it down.")
    assert "\n" not in str(caught.value)


def test_an_empty_prompt_is_an_error(speech_llm, wav):
    with pytest.raises(PamError, match="prompt is empty"):
        speech_llm.generate(wav, "  ")


def test_no_router_no_expert(speech_llm, wav, monkeypatch):
    answered = Answered(0, "hello", [1], None, None, -1.0, 1)
    monkeypatch.setattr(Decoder, "answers", lambda *_: iter([answered]))
    answer = speech_llm.generate(wav, "Write it down.")
    assert (answer.text, answer.expert, answer.posteriors) == ("hello", None, {})


def test_transcribe_prints_answer_and_expert(speech_llm, wav, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(SpeechLLM, "from_pretrained", classmethod(lambda *args: speech_llm))
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    options = ["--exp", "exp/x", "--prompt", "Write it down.", "--max_new_tokens", "4"]
    assert transcribe.main([*options, str(wav)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{wav}: ")
    assert second.startswith("  expert: ")
    assert "(probability 0." in second
    # A bad file is one line, and the good ones are answered all the same.
    assert transcribe.main([*options, str(tmp_path / "bad.wav"), str(wav)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [first, second]
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith(f"error: {tmp_path / 'bad.wav'}: ")


BAD = {
    "headerless.raw": (bytes(9000), "no header with rate and format"),
    "empty.wav": (b"", "empty"),
    "notes.txt": (b"not audio", "notes.txt: "),
    "short.wav": (40, "short.wav: a clip of 40 samples is too short"),
    "missing.wav": (None, "no such audio file"),
    "folder": ("folder", "this is a folder: give the audio files in it"),
    "gr\udcfc\udcdf.wav": (b"not audio", "truncated or corrupt"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_among_others(command, wav, tmp_path, capfdbinary, name):
    """One line that names it; the others are answered, the exit status says that one is bad."""
    content, message = BAD[name]
    file = tmp_path / name
    if content == "folder":
        file.mkdir()
    elif isinstance(content, int):
        soundfile.write(file, np.zeros(content), 16000)
    elif content is not None:
        file.write_bytes(content)
    other = tmp_path / "b.wav"
    soundfile.write(other, tone(8000), 16000)
    assert command(wav, file, other) == 1
    out, err = capfdbinary.readouterr()
    answers = [line for line in out.splitlines() if not line.startswith(b"  ")]
    assert [line.split(b": ")[0] for line in answers] == [bytes(wav), bytes(other)]
    (line,) = err.splitlines()
    assert line.startswith(b"error: " + bytes(file)) and message.encode() in line


def test_a_latin_1_name_is_printed_as_it_is(command, tmp_path, capfdbinary):
    file = tmp_path / "gr\udcfc\udcdf.wav"
    with file.open("wb") as raw:
        soundfile.write(raw, tone(16000), 16000, format="WAV")
    assert command(file) == 0
    assert capfdbinary.readouterr().out.startswith(bytes(file) + b": ")
    assert b"gr\xfc\xdf.wav" in bytes(file)


@pytest.mark.parametrize(("content", "status"), [("wav", 0), (b"", 1), (b"not audio", 1)])
def test_standard_input(command, wav, tmp_path, capsys, monkeypatch, content, status):
    data = wav.read_bytes() if content == "wav" else content

    class Input:
        buffer = io.BytesIO(data)

    monkeypatch.setattr("sys.stdin", Input)
    assert command("-") == status
    out, err = capsys.readouterr()
    assert out.startswith("-: ") if status == 0 else err.startswith("error: standard input: ")
    assert "/tmp" not in err and len(err.splitlines()) == status


def test_transcribe_without_a_gpu(wav, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PamError, match="--ngpu 1: torch sees no GPU"):
        transcribe.main(["--exp", "e", "--prompt", "p", "--ngpu", "1", str(wav)])


@pytest.mark.parametrize(("longest", "warned"), [(None, 0), (0.5, 1), (0.99, 0), (8.0, 0)])
def test_audio_longer_than_that_trained_on(command, speech_llm, wav, longest, warned, caplog):
    """Without cutting, it is one clip, and a warning says so."""
    speech_llm.longest = longest
    assert command("--no_cut", wav) == 0
    answer = speech_llm.generate(tone(16000), "Write it down.", max_new_tokens=4, cut=False)
    assert answer.pieces == ()
    warnings = [record.getMessage() for record in caplog.records]
    names = [str(wav), "audio array"][: 2 * warned]
    text = f"1.0 s of audio, but the model was trained on clips of up to {longest} s"
    assert len(warnings) == len(names)
    for name, warning in zip(names, warnings, strict=True):
        assert warning.startswith(f"{name}: {text}")


@pytest.fixture
def long_wav(tmp_path):
    """10 s: tones of different strengths, with pauses."""
    rng = np.random.default_rng(0)
    strengths = np.repeat(rng.uniform(0.1, 1, 20) * (np.arange(20) % 4 > 0), 8000)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(tone(16000), 10) * strengths, 16000, subtype="FLOAT")
    return path


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("longest", "pieces"), [(None, 0), (9.9, 0), (8.0, 2), (0.9, 16)])
def test_a_long_recording_is_cut(speech_llm, long_wav, longest, pieces, exact, caplog):
    """Its pieces' answers are those of the pieces as clips; file and array are alike."""
    speech_llm = SpeechLLM(speech_llm.model, longest, exact)
    options = {"prompt": "Write it down.", "max_new_tokens": 4}
    answer = speech_llm.generate(long_wav, **options)
    samples = load_audio(long_wav)
    assert speech_llm.generate(samples, **options) == answer
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(answer.pieces) == pieces
    if not pieces:
        return
    assert (answer.pieces[0].start, answer.pieces[-1].end) == (0.0, 10.0)
    for one, other in zip(answer.pieces[:-1], answer.pieces[1:], strict=True):
        assert one.start < other.start < one.end < other.end
    alone = [
        speech_llm.generate(samples[round(start * 16000) : round(end * 16000)], **options)
        for start, end, _ in answer.pieces
    ]
    if exact:
        assert [piece.text for piece in answer.pieces] == [a.text for a in alone]
    assert len({piece.text for piece in answer.pieces}) > 1
    assert answer.posteriors == pytest.approx(alone[0].posteriors)
    assert answer.expert == alone[0].expert
    assert answer.no_speech == pytest.approx(min(a.no_speech for a in alone), abs=0.1)


@pytest.mark.parametrize(
    ("task", "texts", "joined"),
    [
        ("asr_noisy", ["one two three", "two three four", "five"], "one two three four five"),
        ("ac", ["one two", "two three", "One two"], "one two; two three"),
    ],
)
def test_transcripts_are_joined_and_other_answers_listed(
    speech_llm, long_wav, task, texts, joined, monkeypatch
):
    expert = speech_llm.model.tasks.index(task)
    said = [
        Answered(n, text, [1], expert, torch.eye(4)[expert], -1.0, 1)
        for n, text in enumerate(texts)
    ]
    monkeypatch.setattr(Decoder, "answers", lambda self, requests: iter(said[: len(requests)]))
    speech_llm.longest = 4.0
    answer = speech_llm.generate(long_wav, "Write it down.")
    assert len(answer.pieces) == 3 and answer.expert == task
    assert answer.text == joined
    assert [piece.text for piece in answer.pieces] == texts


@pytest.mark.parametrize("skip", [None, 0.5])
def test_silence_is_skipped_if_asked_for(speech_llm, wav, skip):
    """The same clip and answer, but for the text; a sound keeps its answer."""
    options = {"prompt": "How many?", "max_new_tokens": 4, "cut": False, "skip_silence": skip}
    silence = np.zeros(16000, np.float32)
    answer = speech_llm.generate(silence, **options)
    assert answer.no_speech > 0.9 and answer.skipped == (skip is not None)
    assert bool(answer.text) == (skip is None)
    sound = tone(16000) * np.linspace(0, 1, 16000, dtype=np.float32)
    answer = speech_llm.generate(sound, **options)
    assert answer.no_speech < 0.1 and answer.text and not answer.skipped


def test_transcribe_says_what_is_doubtful(command, speech_llm, tmp_path, capsys):
    file = tmp_path / "silence.wav"
    soundfile.write(file, np.zeros(16000), 16000)
    assert command(file) == 0
    assert "  no speech (score 1.00): the answer may be invented" in capsys.readouterr().out
    assert command("--skip_silence", "0.5", file) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{file}: \n") and "  no speech (score 1.00): skipped" in out
    with pytest.raises(PamError, match="--skip_silence 1.5: the score is from 0 to 1"):
        command("--skip_silence", "1.5", file)


def test_transcribe_says_that_a_file_was_cut(command, speech_llm, long_wav, wav, capsys):
    speech_llm.longest = 4.0
    assert command(long_wav, wav) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{long_wav}: ") and lines[1].startswith("  expert: ")
    assert "  longer than the model can take: cut into 3 pieces" in lines
    assert len([line for line in lines if " s: " in line]) == 3
    assert any(line.startswith("  0.0 to ") for line in lines)
    assert lines[-2].startswith(f"{wav}: ") and lines[-1].startswith("  expert: ")


@pytest.mark.parametrize("exact", [False, True])
def test_tokens_per_second_of_audio(speech_llm, wav, exact, monkeypatch):
    """20 tokens in 2.5 s at 8 a second; 16 in any case."""
    speech_llm = SpeechLLM(speech_llm.model, exact=exact)
    monkeypatch.setattr(type(speech_llm.model.llm), "eos", property(lambda self: -1))
    counts = []
    decode = type(speech_llm.model.tokenizer).decode
    monkeypatch.setattr(
        type(speech_llm.model.tokenizer),
        "decode",
        lambda self, ids, **more: counts.append(len(ids)) or decode(self, ids, **more),
    )
    clip = np.tile(tone(16000), 3)[:40000]
    for samples, options in (
        (clip, {}),
        (clip[:8000], {}),
        (clip, {"max_tokens_per_second": 0}),
        (clip, {"max_new_tokens": 7}),
    ):
        speech_llm.generate(samples, "Write.", **{"max_new_tokens": 40, **options})
    faster = SpeechLLM(speech_llm.model, exact=exact, max_tokens_per_second=12)
    faster.generate(clip, "Write.", max_new_tokens=40)
    assert counts == [20, 16, 40, 7, 30]


def test_transcribe_with_only_bad_files_loads_no_model(tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(SpeechLLM, "from_pretrained")
    assert transcribe.main(["--exp", "e", "--prompt", "p", str(tmp_path / "none.wav")]) == 1
    assert "no such audio file" in capsys.readouterr().err


def test_transcribe_with_a_wrong_experiment(wav, tmp_path):
    with pytest.raises(PamError, match="no trained model here"):
        transcribe.main(["--exp", str(tmp_path), "--prompt", "p", str(wav)])


OPTIONS = {"prompt": "Write it down.", "max_new_tokens": 12}


def closed_file():
    file = io.BytesIO(b"RIFF")
    file.close()
    return file


class AudioDecoder:
    """As that of datasets 4: these two keys, a mean of channels, errors of torchcodec."""

    def __init__(self, samples, rate):
        self.samples, self.rate = samples, rate

    def __getitem__(self, key):
        if self.samples is None:
            raise RuntimeError("Failed to open\nthe input buffer")
        found = {"array": self.samples, "sampling_rate": self.rate}
        if key in found:
            return found[key]
        raise TypeError("'AudioDecoder' object is not subscriptable")


def test_rows_of_datasets(tmp_path):
    """A whole row or the audio of one; a path beside the audio, as in Common Voice, is not used."""
    samples, wav = tone(8000), tmp_path / "a.wav"
    soundfile.write(wav, samples, 8000, subtype="FLOAT")
    expected = np.concatenate(list(stream_input(samples, 8000)))
    for row in (
        AudioDecoder(samples, 8000),
        {"path": "gone.mp3", "audio": {"path": "gone.mp3", "bytes": wav.read_bytes()}},
        {"audio": {"path": str(wav), "bytes": None}, "path": "gone.mp3", "text": "hello"},
        {"audio": str(wav), "sentence": "hello"},
        UserDict({"audio": UserDict({"array": samples, "sampling_rate": 8000})}),
        {"audio": AudioDecoder(samples, 8000), "sampling_rate": 44100},
        {"audio": {"array": samples, "sampling_rate": 8000}},
        {"audio": samples, "sampling_rate": 8000},
    ):
        np.testing.assert_array_equal(load_input(row), expected)


def test_all_forms_of_audio_give_the_same(speech_llm, wav):
    expected = speech_llm.generate(wav, **OPTIONS)
    samples = tone(16000)
    with wav.open("rb") as file:
        forms = [
            str(wav),
            wav.read_bytes(),
            file,
            io.BytesIO(wav.read_bytes()),
            samples,
            samples.astype(np.float64),
            torch.from_numpy(samples),
            {"array": samples, "sampling_rate": 16000},
            {"array": samples.tolist(), "sampling_rate": 16000, "path": None},
            {"raw": samples, "sampling_rate": 16000},
            {"bytes": wav.read_bytes(), "path": "gone.wav"},
            {"bytes": None, "path": str(wav)},
            {"audio": AudioDecoder(samples, 16000), "path": "gone.mp3"},
        ]
        for form in forms:
            assert speech_llm.generate(form, **OPTIONS) == expected
    assert (expected.seconds, expected.tokens, expected.complete) == (1.0, 12, False)
    assert expected.wall_seconds > 0


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (b"not audio", "audio bytes: "),
        (io.BytesIO(b"not audio"), "audio file: "),
        ({"text": "a"}, "audio with the keys text: none of audio, array, .* give a path"),
        ({"bytes": None, "path": None}, "audio with the keys bytes, path: none of audio"),
        ({"audio": None, "path": "a.wav"}, "a row of datasets: its audio is None: leave the row"),
        ({"audio": [0.1]}, "audio of type list: give a path"),
        ({"array": [[0.1], [0.1, 0.2]]}, "a list of unlike parts"),
        (AudioDecoder(None, 8000), r"cannot be decoded \(Failed to open the input buffer\): cast"),
        ({"audio": {1, 2}}, "audio of type set: give a path"),
        (closed_file(), "audio file: I/O operation on closed file.*: open it with the mode 'rb'"),
        (SimpleNamespace(read=lambda size: "text"), "audio file: a bytes-like object .*'rb'"),
        ("a" * 5000, r"cannot be read \(File name too long\): correct the path"),
        ((n for n in range(3)), "audio of type generator: give a path"),
        ("https://example.org/a.wav", "a.wav: nothing is downloaded: fetch the file"),
        (7, "audio of type int: give a path"),
        ([0.1, 0.2], "audio of type float"),
        (np.zeros((16000, 1), np.float32), "one dimension"),
    ],
)
def test_other_forms_are_refused(speech_llm, audio, message):
    with pytest.raises(PamError, match=message) as caught:
        speech_llm.generate(audio, "Write it down.")
    assert "\n" not in str(caught.value) and tempfile.gettempdir() not in str(caught.value)


@pytest.mark.parametrize("longest", [None, 4.0])
def test_a_list_gives_the_answers_of_its_members(speech_llm, wav, long_wav, longest):
    speech_llm.longest = longest
    audios, prompts = [wav, long_wav, tone(16000)[:9000]], ["Write.", "How many?", "What is it?"]
    together = speech_llm.generate(audios, prompts, max_new_tokens=6)
    alone = [
        speech_llm.generate(audio, prompt, max_new_tokens=6)
        for audio, prompt in zip(audios, prompts, strict=True)
    ]
    assert together == alone
    assert [answer.seconds for answer in together] == [1.0, 10.0, 9000 / 16000]
    assert len({answer.text for answer in together}) > 1
    assert speech_llm.generate([], "Write.") == []
    with pytest.raises(PamError, match="3 recordings, 2 prompts"):
        speech_llm.generate(audios, prompts[:2])


def test_a_bad_clip_of_a_list_is_named(speech_llm, wav, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(40), 16000)
    with pytest.raises(PamError, match=r"short\.wav: a clip of 40 samples is too short"):
        speech_llm.generate([wav, tmp_path / "short.wav"], "Write it down.")


def test_a_stream_gives_the_tokens_as_they_come(speech_llm, wav):
    expected = speech_llm.generate(wav, **OPTIONS)
    stream = speech_llm.generate(wav, **OPTIONS, stream=True)
    assert stream.answer is None
    parts = list(stream)
    assert "".join(parts) == expected.text and len(parts) > 2
    assert stream.answer == expected
    assert list(stream) == []
    with pytest.raises(PamError, match="stream=True answers one recording"):
        speech_llm.generate([wav], **OPTIONS, stream=True)


def test_a_stream_never_takes_text_back(speech_llm, long_wav, monkeypatch):
    """The transcripts of later pieces change words at the end of the earlier ones."""
    texts = ["a b c d e f g h i j x", "xylo k l m n o p q r s t u v w", "v w and so on to the end"]
    said = [Answered(n, text, [1], 0, torch.eye(4)[0], -1.0, 1) for n, text in enumerate(texts)]
    monkeypatch.setattr(answering, "CLIPS", 1)
    found = iter(said)
    monkeypatch.setattr(Decoder, "answers", lambda self, _: iter([replace(next(found), key=0)]))
    speech_llm.longest = 4.0
    stream = speech_llm.generate(long_wav, **OPTIONS, stream=True)
    parts = list(stream)
    assert len(parts) == 4
    assert "".join(parts) == stream.answer.text
    assert stream.answer.text.startswith("a b c") and " xylo k l " in stream.answer.text


def test_a_closed_stream_ends_the_answer(speech_llm, wav, monkeypatch):
    monkeypatch.setattr(type(speech_llm.model.llm), "eos", property(lambda self: -1))
    stream = speech_llm.generate(wav, "Write.", max_new_tokens=500, stream=True)
    next(stream)
    stream.close()
    list(stream)
    assert stream.answer.tokens < 500


def test_a_stream_that_nobody_holds_any_more_ends_its_answer():
    """As where a loop over it is left."""
    ended = threading.Event()

    def answer(watch, is_wanted):
        watch("some")
        while is_wanted():
            time.sleep(0.01)
        ended.set()

    stream = Stream(answer)
    assert next(stream) == "some" and not ended.is_set()
    del stream
    gc.collect()
    assert ended.wait(60)


def test_calls_of_threads_wait_for_each_other(speech_llm, wav, monkeypatch):
    answers, running, most = speech_llm.answers, [], []

    def noting(questions):
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        yield from answers(questions)
        running.pop()

    monkeypatch.setattr(speech_llm, "answers", noting)
    streams = [speech_llm.generate(wav, "Write.", stream=True) for _ in range(3)]
    texts = {"".join(stream) for stream in streams}
    assert len(texts) == 1 and most == [1, 1, 1]


def test_an_error_of_a_stream_reaches_its_reader(speech_llm):
    stream = speech_llm.generate("no/such.wav", "Write.", stream=True)
    for _ in range(2):
        with pytest.raises(PamError, match="no such audio file"):
            next(stream)


def test_route_and_layer_weights(speech_llm, wav):
    answer = speech_llm.generate(wav, **OPTIONS)
    assert speech_llm.route(OPTIONS["prompt"]) == pytest.approx(answer.posteriors, abs=1e-5)
    assert [list(row) for row in speech_llm.route(["a", "b"])] == [speech_llm.model.tasks] * 2
    weights = answer.layer_weights
    assert list(weights) == [shape.name for shape in speech_llm.model.shapes]
    expert = speech_llm.model.fusion.experts[speech_llm.model.experts.index(answer.expert)]
    np.testing.assert_array_equal(
        np.concatenate(list(weights.values()), axis=1), expert.layer_weights().detach().numpy()
    )


def test_transcribe_asks_for_a_transcript(speech_llm, wav):
    assert speech_llm.transcribe(wav, max_new_tokens=5) == speech_llm.generate(
        wav, "Transcribe the speech.", max_new_tokens=5
    )


def test_an_answer_as_json(speech_llm, long_wav):
    speech_llm.longest = 4.0
    found = json.loads(json.dumps(speech_llm.generate(long_wav, **OPTIONS).as_dict()))
    assert found["pieces"][0].keys() == {"start", "end", "text"}
    assert found["seconds"] == 10.0 and found["tokens"] > 0


def test_a_prompt_of_too_many_tokens(speech_llm, wav, monkeypatch):
    """A character may be several: it is not the characters that take memory."""
    monkeypatch.setattr(api, "MOST_TOKENS", 2 + speech_llm.count_tokens("a"))
    few, many = "a b", "𒀀" * 9
    speech_llm.generate(wav, few)
    for ask in (
        lambda: speech_llm.generate([wav, wav], [few, many]),
        lambda: speech_llm.route(many),
    ):
        with pytest.raises(PamError, match=r"a prompt of \d+ tokens: give at most"):
            ask()


def test_content_that_is_too_long_is_not_decoded(monkeypatch):
    """Hours of silence, of two channels, are kilobytes."""
    content = io.BytesIO()
    soundfile.write(content, np.zeros((10 * 16000, 2)), 16000, format="FLAC")
    assert sum(map(len, stream_content(content.getvalue(), 10.0))) == 160000
    monkeypatch.setattr(Audio, "blocks", None)
    with pytest.raises(TooLongError, match="^more than 9.99 s of audio$"):
        list(stream_content(content.getvalue(), 9.99))


def test_notes_about_content_do_not_name_its_copy(caplog):
    content = io.BytesIO()
    soundfile.write(content, np.stack([tone(16000), -tone(16000)], 1), 16000, format="WAV")
    for _ in range(2):  # they are of another copy
        list(stream_input(content.getvalue()))
    note = "audio bytes: its channels cancel each other: only channel 1 is used"
    assert [record.getMessage() for record in caplog.records] == [note] * 2


def test_a_type_of_torch_is_a_dtype(monkeypatch, tmp_path):
    found = []
    load = lambda exp, online, dtype: found.append(dtype) or Loaded()  # noqa: E731
    monkeypatch.setattr(api, "load_experiment", load)
    monkeypatch.setattr(api, "SpeechLLM", type("Fake", (SpeechLLM,), {"__init__": ignore}))
    monkeypatch.setattr(api, "load_yaml", lambda path: {})
    for dtype in (torch.bfloat16, "bfloat16", None):
        api.SpeechLLM.from_pretrained(tmp_path, dtype=dtype)
    assert found == ["bfloat16", "bfloat16", None]


def test_where_a_model_may_be(speech_llm, tmp_path, monkeypatch):
    """A folder, or a repository of the hub, of which only the model's files are fetched."""
    import huggingface_hub

    found = []
    monkeypatch.setattr(api, "load_experiment", lambda exp, **_: found.append(exp) or Loaded())
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, allow_patterns: f"/hub/{name}"
    )
    monkeypatch.setattr(api, "SpeechLLM", type("Fake", (SpeechLLM,), {"__init__": ignore}))
    monkeypatch.setattr(api, "load_yaml", lambda path: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp/here").mkdir(parents=True)
    for name in ("exp/here", "user/model", "exp/deep/er"):
        api.SpeechLLM.from_pretrained(name)
    assert [str(exp) for exp in found] == ["exp/here", "/hub/user/model", "exp/deep/er"]


@pytest.mark.parametrize("exact", [True, False])
def test_no_answer_repeats_a_sequence_if_the_experiment_says_so(
    speech_llm, wav, exact, monkeypatch
):
    def tokens(*given) -> list[int]:
        counted = []
        llm = SpeechLLM(speech_llm.model, None, exact, *given)
        answers = llm.decoder.answers
        llm.decoder.answers = lambda requests: (counted.append(a) or a for a in answers(requests))
        llm.generate(wav, "Again?", max_new_tokens=40, max_tokens_per_second=0)
        return counted[0].tokens

    assert len(set(tokens(1))) == len(tokens(1)) and len(set(tokens())) < len(tokens())
    short = SpeechLLM(speech_llm.model, None, exact, max_new_tokens=2)
    assert short.generate(wav, "Again?") == short.generate(wav, "Again?", max_new_tokens=2)
    monkeypatch.setattr(api, "load_experiment", lambda exp, **_: Loaded())
    monkeypatch.setattr(api, "folder_of", Path)
    monkeypatch.setattr(api, "read_longest", ignore)
    found = []
    record = {"__init__": lambda self, *_, **limits: found.append(limits)}
    monkeypatch.setattr(api, "SpeechLLM", type("Fake", (SpeechLLM,), record))
    scale = {"no_repeat_ngram_size": 3, "max_new_tokens": 9, "max_tokens_per_second": 12}
    for config in ({"max_new_tokens": None}, scale):
        monkeypatch.setattr(api, "load_yaml", lambda path, config=config: config)
        api.SpeechLLM.from_pretrained("exp")
        api.SpeechLLM.from_pretrained("exp", no_repeat_ngram_size=5)
    assert found == [
        {
            "max_new_tokens": longest,
            "max_tokens_per_second": per_second,
            "no_repeat_ngram_size": size,
        }
        for longest, per_second, size in ((128, 8, 0), (128, 8, 5), (9, 12, 3), (9, 12, 5))
    ]


class Loaded:
    def to(self, device):
        return self


def ignore(*_, **options):
    pass


def test_a_model_that_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PamError, match=r"no/model: there is no such folder.*correct the name"):
        SpeechLLM.from_pretrained("no/model")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported/config.json").write_text("{}")
    with pytest.raises(PamError, match="exported: an exported model: load it with transformers"):
        SpeechLLM.from_pretrained("exported")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio": {"array": tone(8000), "sampling_rate": 0}}, "sample rate 0: expected"),
        ({"sample_rate": -1}, "sample rate -1: expected samples a second"),
        ({"sample_rate": "8k"}, "sample rate '8k': expected samples a second"),
        ({"sample_rate": float("nan")}, "sample rate nan: expected"),
        ({"audio": io.StringIO("text")}, "it is open as text"),
        ({"prompt": "\udcff"}, r"prompt '\\udcff': not UTF-8"),
        ({"prompt": "word " * 5000}, "a prompt of 25000 characters: give at most 8000"),
        ({"max_new_tokens": 1.5}, "max_new_tokens 1.5: expected a whole number, at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens 0: expected a whole number, at least 1"),
    ],
)
def test_values_that_mean_nothing_are_one_line(speech_llm, options, message):
    with pytest.raises(PamError, match=message) as caught:
        speech_llm.generate(**{"audio": tone(16000), "prompt": "What?"} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta:cpu"])
def test_a_device_that_is_not_here(tmp_path, device):
    with pytest.raises(PamError, match=f"device '{device}': .*use \"cpu\""):
        SpeechLLM.from_pretrained(tmp_path, device)


def test_route_and_layer_weights_name_what_is_wrong(speech_llm):
    for prompt, message in (("", "prompt is empty"), ([], "no prompt"), (["a", 3], "is empty")):
        with pytest.raises(PamError, match=message):
            speech_llm.route(prompt)
    with pytest.raises(PamError, match="expert 'nobody': there is none.*known: asr_clean"):
        speech_llm.layer_weights("nobody")
