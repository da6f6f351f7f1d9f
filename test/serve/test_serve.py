"""The server, over HTTP, with the client that users have and with clients that they do not want."""

import asyncio
import base64
import gc
import io
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import soundfile
import uvicorn
from processes import wait_for
from toys import tone

from pam.bin import serve
from pam.decode.answer import Answer, Piece
from pam.decode.answering import Answering
from pam.decode.question import Question
from pam.errors import MachineError, PamError
from pam.serve.address import bound
from pam.serve.app import Server, make_app
from pam.serve.audio import decode_base64
from pam.serve.batcher import Batcher, Job
from pam.serve.errors import ApiError
from pam.serve.limits import Limits
from pam.serve.subtitles import srt, vtt

PROMPT, TOKENS = "Write it down.", 12
LIMITS = Limits(megabytes=1.0, seconds=30.0, tokens=TOKENS)


def as_wav(samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()


WAV = as_wav(tone(16000))
PATIENCE = 600  # seconds; only a test that fails takes so long
LONG = as_wav(np.tile(tone(16000), 29))  # its answer may have 200 tokens


@contextmanager
def running(llm, limits=LIMITS, key=None, own_name=None):
    """A server in a thread; yields its address and the object that stops it."""
    app = make_app(llm, "toy", limits, key, own_name)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def served(speech_llm):
    with running(speech_llm) as (address, _):
        yield address


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served}/v1", api_key="unused", max_retries=0) as client:
        yield client


def messages(audio: bytes = WAV, prompt: str = PROMPT):
    data = {"data": base64.b64encode(audio).decode(), "format": "wav"}
    content = [{"type": "text", "text": prompt}, {"type": "input_audio", "input_audio": data}]
    return [{"role": "user", "content": content}]


def expected(llm, samples, prompt=PROMPT) -> Answer:
    return llm.generate(samples, prompt, max_new_tokens=TOKENS)


# --- the interfaces


def test_chat(client, speech_llm):
    answer = expected(speech_llm, tone(16000))
    found = client.chat.completions.create(model="toy", messages=messages(), temperature=0)
    assert found.choices[0].message.content == answer.text
    assert found.choices[0].finish_reason == ("stop" if answer.complete else "length")
    assert found.usage.completion_tokens == answer.tokens
    assert found.usage.prompt_tokens == len(speech_llm.model.llm.prompt_ids(PROMPT))
    assert found.pam["expert"] == answer.expert
    assert found.pam["posteriors"] == pytest.approx(answer.posteriors)
    assert found.pam["seconds"] == 1.0


def test_chat_in_a_stream(client, speech_llm):
    answer = expected(speech_llm, tone(16000))
    stream = client.chat.completions.create(
        model="toy", messages=messages(), stream=True, stream_options={"include_usage": True}
    )
    *chunks, end, usage = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == answer.text
    assert len(chunks) > 3
    assert end.choices[0].finish_reason == "length" and end.pam["expert"] == answer.expert
    assert usage.choices == [] and usage.usage.completion_tokens == answer.tokens


def test_an_answer_has_as_many_tokens_as_the_experiment_says(speech_llm, monkeypatch):
    """The server's own limit is for requests that ask for more."""
    monkeypatch.setattr(type(speech_llm.model.llm), "eos", property(lambda self: -1))
    speech_llm.max_new_tokens = 5
    with running(speech_llm) as (address, _):
        counts = [post_chat(address, max_tokens=n).json()["usage"] for n in (None, 7)]
    assert [count["completion_tokens"] for count in counts] == [5, 7]


def test_fewer_tokens(client, speech_llm):
    found = client.chat.completions.create(model="toy", messages=messages(), max_tokens=3)
    assert found.usage.completion_tokens == 3
    with pytest.raises(openai.BadRequestError, match="this server gives at most 12"):
        client.chat.completions.create(model="toy", messages=messages(), max_tokens=13)


def test_transcriptions_in_all_formats(client, speech_llm):
    answer = expected(speech_llm, tone(16000), "Transcribe the speech.")
    create = client.audio.transcriptions.create
    assert create(model="toy", file=("a.wav", WAV), language="en").text == answer.text
    forms = {
        form: create(model="toy", file=("a.wav", WAV), response_format=form)
        for form in ("text", "verbose_json", "srt", "vtt")
    }
    assert forms["text"] == f"{answer.text}\n"
    assert forms["verbose_json"].duration == 1.0 and forms["verbose_json"].language == "unknown"
    (segment,) = forms["verbose_json"].segments
    assert (segment.start, segment.end, segment.text) == (0.0, 1.0, answer.text)
    assert forms["srt"].startswith("1\n00:00:00,000 --> 00:00:01,000\n")
    assert forms["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")
    assert create(model="toy", file=("a.wav", WAV), prompt="").text == answer.text
    other = create(model="toy", file=("a.wav", WAV), prompt=PROMPT).text
    assert other == expected(speech_llm, tone(16000)).text


def test_a_transcription_in_a_stream(client, speech_llm):
    answer = expected(speech_llm, tone(16000), "Transcribe the speech.")
    events = list(client.audio.transcriptions.create(model="toy", file=WAV, stream=True))
    assert "".join(e.delta for e in events[:-1]) == answer.text
    assert events[-1].type == "transcript.text.done" and events[-1].text == answer.text


def test_a_long_recording_has_segments(speech_llm, served):
    speech_llm.longest = 2.0
    samples = np.tile(tone(16000), 7) * np.repeat([1, 0, 1, 1, 0, 1, 1], 16000)
    answer = expected(speech_llm, samples, "Transcribe the speech.")
    body = {"model": "toy", "response_format": "verbose_json"}
    found = post(served, data=body, files={"file": as_wav(samples.astype(np.float32))}).json()
    assert found["text"] == answer.text and found["duration"] == 7.0
    assert [(s["start"], s["end"]) for s in found["segments"]] == [
        (piece.start, piece.end) for piece in answer.pieces
    ]


def test_subtitles():
    pieces = [
        Piece(0.0, 2.5, "one\n\ntwo"),
        Piece(2.0, 3.0, ""),
        Piece(3599.9996, 3661.25, "a --> b"),
    ]
    assert srt(pieces) == (
        "1\n00:00:00,000 --> 00:00:02,500\none\ntwo\n\n2\n01:00:00,000 --> 01:01:01,250\na → b\n\n"
    )
    assert vtt(pieces).count("-->") == 2
    cue = Piece(0.0, 1.0, "<b> & c")
    assert "\n<b> & c\n" in srt([cue]) and "\n&lt;b&gt; &amp; c\n" in vtt([cue])


def test_models_health_and_metrics(client, served):
    assert [model.id for model in client.models.list()] == ["toy"]
    assert httpx.get(f"{served}/health").json() == {"status": "ok"}
    client.chat.completions.create(model="toy", messages=messages())
    text = httpx.get(f"{served}/metrics").text
    assert 'pam_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert "pam_audio_seconds_total 1.0" in text and "pam_waiting 0.0" in text


# --- many clients


def test_32_clients_get_the_answers_of_one(client, speech_llm, served):
    clips = [tone(16000)[: 3200 + 400 * n] * (0.2 + n / 40) for n in range(32)]
    alone = [expected(speech_llm, clip).text for clip in clips]
    assert len(set(alone)) > 1

    def ask(number: int) -> str:
        found = client.chat.completions.create(
            model="toy", messages=messages(as_wav(clips[number])), timeout=240
        )
        return found.choices[0].message.content

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(32))) == alone
    text = httpx.get(f"{served}/metrics").text
    batches = float(re.search(r"pam_batch_size_count (\S+)", text)[1])
    assert batches < 32, "no requests were answered together"


def test_a_full_queue_is_an_error_that_clients_understand(speech_llm, monkeypatch):
    free, begun = threading.Event(), threading.Event()
    answers = speech_llm.answers

    def slow(questions):
        begun.set()
        assert free.wait(120)
        yield from answers(questions)

    monkeypatch.setattr(speech_llm, "answers", slow)
    with (
        running(speech_llm, Limits(tokens=TOKENS, queue=2, batch=1)) as (address, _),
        ThreadPoolExecutor(3) as pool,
    ):
        first = pool.submit(post_chat, address)
        assert begun.wait(120)
        others = [pool.submit(post_chat, address) for _ in range(2)]
        assert wait_for(lambda: "pam_waiting 2.0" in metrics(address))
        refused = post_chat(address, b"")  # before its audio is looked at
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"
        free.set()
        assert [f.result().status_code for f in (first, *others)] == [200] * 3


def test_what_a_failed_batch_held_is_free_before_its_requests_are_asked_again():
    """As where the memory of a GPU did not suffice."""
    held, alive = [], []

    class Memory:
        """Stands for the tensors of a batch."""

    class Model:
        def answers(self, questions):
            alive.append(sum(memory() is not None for memory in held))
            memory = Memory()
            held.append(weakref.ref(memory))
            if len(questions) > 1:
                raise RuntimeError("CUDA out of memory")
            yield 0, Answer("yes", None, {})

    batcher = Batcher(Model(), Limits())
    jobs = [Job(Question(tone(16000), "Yes?"), 1.0) for _ in range(3)]
    batcher._answer(jobs)
    assert [job.future.result().text for job in jobs] == ["yes"] * 3 and alive == [0] * 4


def test_one_bad_clip_does_not_harm_its_batch(speech_llm, monkeypatch):
    """It is too short for the encoders, which only the model's thread finds out."""
    with running(speech_llm) as (address, _), ThreadPoolExecutor(4) as pool:
        clips = [tone(16000), tone(16000)[:200], tone(16000)[:9000]]
        found = list(pool.map(lambda clip: post_chat(address, as_wav(clip)), clips))
    assert [f.status_code for f in found] == [200, 400, 200]
    assert "too short" in found[1].json()["error"]["message"]


def test_a_job_that_failed_is_no_error_in_the_log(served, caplog):
    """asyncio logs a future whose error nobody read, when it is collected."""
    for audio in [as_wav(tone(16000)[:200])] * 2:
        assert post_chat(served, audio).status_code == 400
        assert post_chat(served, audio, stream=True).status_code == 200
    gc.collect()
    assert "never retrieved" not in caplog.text


# --- what is refused


def post(address, **options):
    return httpx.post(f"{address}/v1/audio/transcriptions", timeout=120, **options)


def post_chat(address, audio=WAV, headers=None, **fields):
    body = {"model": "toy", "messages": messages(audio), **fields}
    return httpx.post(
        f"{address}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE
    )


def metrics(address) -> str:
    return httpx.get(f"{address}/metrics", timeout=PATIENCE).text


def fault(response) -> tuple[int, str]:
    """Status and message; every error has OpenAI's shape."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert "/tmp" not in error["message"] and "\n" not in error["message"]
    return response.status_code, error["message"]


# In a process of its own, which can open 0 to 4 files: the status of each attempt to read a clip.
FEW_DESCRIPTORS = """
import os, resource, sys
from pam.serve.audio import read_clip
from pam.serve.errors import ApiError

with open(sys.argv[1], "rb") as file:
    content = file.read()
clip, held = read_clip(content, 30.0, "file"), []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for count in range(5):
    try:
        found = read_clip(content, 30.0, "file")
    except ApiError as error:
        print(error.status, error.code)
    else:
        print(200, "ok" if (found == clip).all() else "wrong")
    os.close(held.pop())
"""


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_no_descriptor_for_a_clip_is_the_servers_fault(form, tmp_path):
    soundfile.write(tmp_path / "clip", tone(16000), 16000, format=form)
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path / "clip")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()
    failed = found.count("503 overloaded")
    assert 1 < failed < 5 and found == ["503 overloaded"] * failed + ["200 ok"] * (5 - failed)
    assert [line.count("Too many open files") for line in done.stderr.splitlines()] == [1] * failed


def test_a_disk_that_fails_is_the_servers_fault(served, monkeypatch, caplog):
    def failing(_content, _most_seconds):
        raise MachineError("cannot be read (Input/output error): try again later")
        yield

    monkeypatch.setattr("pam.serve.audio.stream_content", failing)
    response = post(served, data={"model": "toy"}, files={"file": WAV})
    assert fault(response) == (503, "the server cannot read audio now: try again later")
    assert response.headers["retry-after"] == "1"
    assert "Input/output error" in caplog.text and "Traceback" not in caplog.text


FIELDS = {
    "temperature": (0.7, "temperature: this server decodes greedily"),
    "n": (2, "n: this server gives one answer"),
    "tools": ([{"type": "function"}], "tools: this server does not offer it"),
    "presence_penalty": (0.5, "presence_penalty: this server does not offer it"),
    "logit_bias": ({"50": 100}, "logit_bias: this server does not offer it"),
    "messages": ([], "messages: give one message"),
    "max_tokens": (0, "greater than or equal to 1"),
    "model": ("gpt", "model 'gpt' is not served here: it is 'toy'"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_fields(served, field):
    value, message = FIELDS[field]
    status, found = fault(post_chat(served, **{field: value}))
    assert status == (404 if field == "model" else 400) and message in found


def test_options_that_change_nothing(served):
    """Clients give the defaults of OpenAI's API."""
    defaults = {"stream": None, "stop": "", "n": 1, "tools": [], "frequency_penalty": 0.0}
    defaults |= {"logit_bias": {}, "response_format": {"type": "text"}, "seed": 1, "top_p": 1.0}
    assert post_chat(served, **defaults).status_code == 200


def test_conversations(served):
    (user,) = messages()
    text, audio = user["content"]
    for turns, message in (
        ([{"role": "system", "content": "Be kind."}, user], "one message of the role user"),
        ([{"role": "user", "content": "no audio"}], "0 parts of type input_audio"),
        ([{"role": "user", "content": [text, audio, audio]}], "2 parts of type input_audio"),
        ([{"role": "user", "content": [audio]}], "no text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "image_url"),
    ):
        status, found = fault(post_chat(served, messages=turns))
        assert status == 400 and message in found


@pytest.mark.parametrize(
    "data",
    ["http://127.0.0.1/a.wav", "file:///etc/passwd", "not base64!", "data:audio/wav;base64,%%"],
)
def test_other_addresses_are_not_fetched(data):
    with pytest.raises(ApiError) as caught:
        decode_base64(data, "input_audio")
    assert caught.value.status == 400


def test_a_data_url():
    url = "data:audio/wav;codecs=1;base64," + base64.b64encode(WAV).decode()
    assert decode_base64(url, "input_audio") == WAV


def silence(hours: float) -> bytes:
    """FLAC, which makes hours of silence small."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16000, 1, "PCM_16", format="FLAC") as out:
        for _ in range(round(hours * 60)):
            out.write(np.zeros(960000, np.int16))
    return file.getvalue()


def test_uploads_that_nobody_wants(served):
    png = b"\x89PNG\r\n\x1a\n" + bytes(1000)
    hostile = {
        "../../etc/passwd": (png, 400),
        "picture.wav": (png, 400),
        "empty.wav": (b"", 400),
        "truncated.wav": (WAV[:3000], 400),
        "short.wav": (as_wav(tone(16000)[:100]), 400),
        "nan.wav": (as_wav(np.full(16000, np.nan, np.float32)), 400),
        "ten_hours.flac": (silence(10), 413),
        "large.wav": (as_wav(np.tile(tone(16000), 20)), 413),
    }
    for name, (content, status) in hostile.items():
        started = time.monotonic()
        response = post(served, data={"model": "toy"}, files={"file": (name, content)})
        assert fault(response)[0] == status, name
        assert time.monotonic() - started < 60, name
    assert post_chat(served).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("chat/completions", b"{", "application/json"),
        ("chat/completions", b"[]", "application/json"),
        ("chat/completions", b"\xff\xfe", "application/json"),
        ("audio/transcriptions", b"nothing", "multipart/form-data"),
        ("audio/transcriptions", b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        ("audio/transcriptions", b"", "application/json"),
    ],
)
def test_bodies_that_are_broken(served, path, body, kind):
    response = httpx.post(f"{served}/v1/{path}", content=body, headers={"content-type": kind})
    assert fault(response)[0] == 400


def test_fields_of_transcriptions(served):
    file = {"file": WAV}
    for data, message in (
        ({"model": "toy", "response_format": "doc"}, "response_format: known: json"),
        ({"model": "toy", "temperature": "1"}, "greedily"),
        ({"model": "toy", "timestamp_granularities[]": "word"}, "segments only"),
        ({"model": "toy", "stream": "true", "response_format": "srt"}, "only with"),
        ({}, "model"),
    ):
        status, found = fault(post(served, data=data, files=file))
        assert status == 400 and message in found
    assert "file: missing" in fault(post(served, files={"model": (None, "toy")}))[1]


@pytest.mark.parametrize("prompt", [" ", "word " * 5000], ids=["empty", "long"])
def test_prompts_that_cannot_be_read(served, prompt):
    """A long one would take gigabytes of memory, as attention does."""
    found = [post_chat(served, messages=messages(prompt=prompt))]
    found.append(post(served, data={"model": "toy", "prompt": prompt}, files={"file": WAV}))
    for status, message in map(fault, found):
        assert status == 400
        assert "no text" in message or "is empty" in message or "at most 8000" in message


def test_unknown_routes(served):
    assert fault(httpx.get(f"{served}/v1/files"))[0] == 404
    assert fault(httpx.get(f"{served}/v1/chat/completions"))[0] == 405


def test_a_body_that_breaks_off(served, caplog):
    """The server goes on, and does not count it as its own fault."""
    host, port = served.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{"
        )
    assert post_chat(served).status_code == 200
    count = 'pam_requests_total{path="/v1/chat/completions",status="499"} 1.0'
    assert wait_for(lambda: count in metrics(served))
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text


def test_the_key(speech_llm):
    with running(speech_llm, key="secret") as (address, _):
        for headers in (None, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é"}):
            raw = headers and {k: v.encode() for k, v in headers.items()}
            assert fault(post_chat(address, headers=raw))[0] == 401
        assert fault(httpx.get(f"{address}/metrics"))[0] == 401
        assert httpx.get(f"{address}/health").status_code == 200
        key = {"Authorization": "Bearer secret"}
        assert post_chat(address, headers=key).status_code == 200
        assert models(address, key | {"Origin": "http://a.example", "Host": "b.example"}) == 200


def models(address, headers) -> int:
    return httpx.get(f"{address}/v1/models", headers=headers).status_code


OTHER_PAGES = ["http://page.example", "https://page.example:8000", "null", "http://[", ""]


@pytest.mark.parametrize("origin", OTHER_PAGES)
def test_pages_of_other_addresses(served, origin):
    status, message = fault(post_chat(served, headers={"Origin": origin}))
    assert status == 403 and message.startswith(f"pages of {origin} may not use this server")


def test_pages_of_the_server_itself(served):
    """As behind a proxy that has a page beside it."""
    assert models(served, {"Origin": "https://My.Example", "Host": "my.example"}) == 200
    assert models(served, {"Origin": served}) == 200


def test_names_of_this_machine(speech_llm):
    with running(speech_llm, own_name="My-Laptop") as (address, _):
        for name in ("localhost:9000", "127.0.0.1", "127.0.1.1:80", "[::1]:8000", "my-laptop:1"):
            assert models(address, {"Host": name}) == 200, name
        for name in ("page.example:8000", "localhost.example", "192.0.2.1", "[", "a b", "::1"):
            status, message = fault(httpx.get(f"{address}/v1/models", headers={"Host": name}))
            assert status == 403 and message.startswith(f"{name} is not a name of the machine")


# --- clients that leave, and the end of the server


@pytest.fixture
def endless(speech_llm, monkeypatch):
    """Its answers have as many tokens as allowed, and each takes a moment."""
    speech_llm.max_new_tokens = 200
    monkeypatch.setattr(type(speech_llm.model.llm), "eos", property(lambda self: -1))
    return speech_llm


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_answer(endless, stream, monkeypatch):
    counts, made = [], Answering.made

    def noting(self, answered, clip):
        counts.append(len(answered.tokens))
        return made(self, answered, clip)

    monkeypatch.setattr(Answering, "made", noting)
    with running(endless, Limits(tokens=200)) as (address, _):
        for _ in range(2):  # the first one prepares the model
            started = time.monotonic()
            post_chat(address, LONG)
            whole = time.monotonic() - started
        body = {"model": "toy", "messages": messages(LONG), "stream": stream}
        if stream:
            with httpx.stream("POST", f"{address}/v1/chat/completions", json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.TimeoutException):
                httpx.post(f"{address}/v1/chat/completions", json=body, timeout=whole / 10)
        assert post_chat(address, max_tokens=1).status_code == 200
    assert counts[:2] == [200, 200] and counts[-1] == 1
    assert all(count < 200 for count in counts[2:])


def test_a_stream_that_is_left_leaves_no_task():
    """asyncio would log it as an error when it is freed."""
    job = Job(Question(tone(16000), PROMPT), 1.0)

    async def left() -> set:
        reading = asyncio.create_task(anext(Server.deltas(None, job, asyncio.Queue())))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait({reading})
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(left()) == set() and not job.is_wanted


def test_requests_in_flight_are_finished(endless):
    with running(endless, Limits(tokens=200)) as (address, server), ThreadPoolExecutor(2) as pool:
        asked = pool.submit(post_chat, address, LONG)
        assert wait_for(lambda: "pam_batch_size_count 1.0" in metrics(address))
        server.should_exit = True
        assert asked.result().status_code == 200
        assert wait_for(lambda: refuses(address))


@contextmanager
def process(config, *options):
    """The server as a process of its own, whose model waits until its standard input is closed.
    Yields its address and the process."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("toy_server.py")), json.dumps(config)]
    command += ["--port", str(port), *options]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True)
    watch = threading.Timer(PATIENCE, server.kill)
    watch.start()
    address = f"http://127.0.0.1:{port}"
    try:
        assert wait_for(lambda: server.poll() is not None or not refuses(address), PATIENCE)
        yield address, server
    finally:
        watch.cancel()
        server.kill()
        server.wait()


def logs(server, message):
    """Wait for a line of a process's log."""
    seen = list(itertools.takewhile(lambda line: message not in line, server.stderr))
    assert server.poll() is None, "".join(seen)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_end(tiny_config, number):
    """One answer is being computed, another waits, and a third is read as a stream."""
    with (
        process(tiny_config, "--tokens", str(TOKENS), "--batch", "1") as (address, server),
        ThreadPoolExecutor(3) as pool,
    ):
        asked = [pool.submit(post_chat, address, stream=n == 2) for n in range(3)]
        assert wait_for(lambda: "pam_waiting 2.0" in metrics(address))
        assert models(address, {"Host": "page.example"}) == 403
        server.send_signal(number)
        logs(server, "Waiting for connections to close")
        assert not any(one.done() for one in asked)
        server.stdin.close()  # the model may answer
        found = [one.result() for one in asked]
        error = server.stderr.read()
        assert server.wait() == 0
    assert [one.status_code for one in found] == [200] * 3
    assert all(one.json()["usage"]["completion_tokens"] == TOKENS for one in found[:2])
    assert found[2].text.endswith("data: [DONE]\n\n")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "0"], "batch 0: must be more than 0"),
        (["--seconds", "nan"], "seconds nan: must be more than 0"),
        (["--port", "99999"], "--port 99999: expected 0 (a free one) to 65535"),
        (["--host", "no.such.host.invalid"], "give a name or an address of this machine"),
        (["--host", "192.0.2.1"], "give an address of this machine and a port that is free"),
    ],
)
def test_options_that_cannot_be_served(options, message):
    with pytest.raises(PamError, match=re.escape(message)):
        serve.main(["toy", *options])


def test_localhost_is_served_by_ipv4(monkeypatch):
    """Clients that ask for 127.0.0.1 find it, where localhost is ::1 first."""
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: both)
    with bound("localhost", 0) as found:
        assert found.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PamError, match=f"--port {port}: Address already in use"):
            serve.main([str(tmp_path), "--port", str(port)])


def refuses(address) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=1).status_code == 503
    except httpx.HTTPError:
        return True


def test_an_error_inside_is_reported_without_its_details(speech_llm, monkeypatch):
    def broken(_questions):
        raise RuntimeError("secret details")
        yield

    monkeypatch.setattr(speech_llm, "answers", broken)
    with running(speech_llm) as (address, _):
        status, message = fault(post_chat(address))
        assert status == 500 and "secret" not in message
        chunks = post_chat(address, stream=True).text
    assert "secret" not in chunks


def test_pam_errors_reach_the_client(speech_llm, monkeypatch):
    def refusing(_questions):
        raise PamError("this prompt cannot be encoded: change it")
        yield

    monkeypatch.setattr(speech_llm, "answers", refusing)
    with running(speech_llm) as (address, _):
        assert fault(post_chat(address)) == (400, "this prompt cannot be encoded: change it")
        lines = post_chat(address, stream=True).text.splitlines()
    assert any(
        "cannot be encoded" in json.loads(line[6:]).get("error", {}).get("message", "")
        for line in lines
        if line.startswith("data: {")
    )
