"""The application: routes, limits, the key, and errors as OpenAI's API reports them."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pam.decode.answer import Answer
from pam.decode.api import TRANSCRIBE, SpeechLLM
from pam.decode.question import Question
from pam.errors import PamError
from pam.rate import SAMPLE_RATE
from pam.serve.audio import decode_base64, read_clip
from pam.serve.batcher import Batcher, Job
from pam.serve.errors import ApiError, invalid
from pam.serve.limits import Limits
from pam.serve.metrics import Metrics
from pam.serve.pages import check_page
from pam.serve.requests import ChatRequest, TranscriptionRequest, fault_of
from pam.serve.responses import END_OF_STREAM, Chat, details, event, finish_reason, transcription
from pam.serve.responses import usage as usage_of

BODY_SECONDS = 60.0  # for the whole body to arrive
DECODERS = 2  # threads that decode audio
BASE64 = 4 / 3  # characters per byte
CLIENT_GONE = 499  # as nginx counts requests whose client left


class Server:
    """What the routes share.

    Args:
        name: of the model, as clients give it.
        key: what clients must send; None: nothing, but pages of other addresses are refused.
        own_name: of a server that only this machine reaches; see `check_page`.
    """

    def __init__(
        self,
        llm: SpeechLLM,
        name: str,
        limits: Limits,
        key: str | None = None,
        own_name: str | None = None,
    ):
        self.llm, self.name, self.limits, self.key = llm, name, limits, key
        self.own_name = own_name
        self.metrics, self.batcher = Metrics(), Batcher(llm, limits)
        self.decoders = CapacityLimiter(DECODERS)
        self.created = int(time.time())
        self.metrics.waiting.set_function(lambda: len(self.batcher.waiting))
        self.batcher.on_batch = self.metrics.batch.observe

    # --- what a request must have

    def check_sender(self, request: Request) -> None:
        if self.key is None:
            check_page(request, self.own_name)
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            raise ApiError(401, "the API key is missing or wrong", "invalid_api_key")

    def check_model(self, name: str) -> None:
        if name != self.name:
            why = f"model {name!r} is not served here: it is {self.name!r}"
            raise ApiError(404, why, "model_not_found", "model")

    async def body(self, request: Request, most: float) -> bytes:
        """The body. `ApiError` 413 where it is larger than `most` bytes, 408 where it stalls, 499
        where it breaks off, 503 where the queue is full."""
        self.batcher.refuse_if_full()
        content = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    content += chunk
                    if len(content) > most:
                        why = f"the body is larger than {self.limits.megabytes:g} MB of audio"
                        raise ApiError(413, why, "request_too_large")
        except TimeoutError as error:
            raise ApiError(408, "the body did not arrive in time", "timeout") from error
        except ClientDisconnect as error:
            raise client_gone() from error
        return bytes(content)

    async def clip_job(
        self,
        content: bytes,
        prompt: str,
        tokens: int | None,
        param: str,
        on_text: Callable[[str], None] | None = None,
    ) -> Job:
        """A queued job about the audio in `content`."""
        most = self.limits.tokens
        if tokens is not None and tokens > most:
            raise invalid("max_tokens", f"{tokens}: this server gives at most {most}")
        clip = await anyio.to_thread.run_sync(
            read_clip, content, self.limits.seconds, param, limiter=self.decoders
        )
        seconds = len(clip) / SAMPLE_RATE
        tokens = tokens or min(most, self.llm.max_new_tokens)
        question = Question(clip, prompt, max_new_tokens=tokens, name=param)
        job = Job(question, seconds, on_text)
        self.batcher.submit(job)
        self.metrics.audio.inc(seconds)
        return job

    # --- answers

    async def answer(self, job: Job, request: Request) -> Answer:
        """Wait for a job; it is cancelled if the client leaves."""
        future = awaitable(job)
        gone = asyncio.create_task(disconnected(request))
        try:
            await asyncio.wait({future, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise client_gone()
            return self.result(job)
        finally:
            gone.cancel()
            job.cancel()

    def result(self, job: Job) -> Answer:
        """The answer of a job that is done. `ApiError` for its error."""
        error = job.future.exception()
        if isinstance(error, PamError):
            raise ApiError(400, str(error), "invalid_value") from error
        if error is not None:
            raise ApiError(500, "the answer failed: see the server's log", "failed") from error
        answer = job.future.result()
        self.metrics.tokens.inc(answer.tokens)
        return answer

    async def deltas(self, job: Job, texts: asyncio.Queue[str]) -> AsyncIterator[str]:
        """New text of a job's answer whenever there is some, to its end."""
        future, shown = awaitable(job), ""
        getter: asyncio.Task[str] | None = None
        try:
            while not future.done():
                getter = asyncio.create_task(texts.get())
                await asyncio.wait({getter, future}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done() and len(text := getter.result()) > len(shown):
                    yield text[len(shown) :]
                    shown = text
            if rest := self.result(job).text[len(shown) :]:
                yield rest
        finally:
            if getter is not None:
                getter.cancel()
            job.cancel()

    # --- routes

    async def chat(self, request: Request) -> Response:
        limit = self.limits.megabytes * 1e6 * BASE64 + 1e5
        asked = ChatRequest.model_validate_json(await self.body(request, limit))
        asked.check()
        self.check_model(asked.model)
        prompt, data = asked.prompt_and_audio()
        prompt_tokens = self.llm.count_tokens(prompt)
        content = decode_base64(data, "input_audio")
        texts, on_text = texts_of(bool(asked.stream))
        job = await self.clip_job(content, prompt, asked.limit, "input_audio", on_text)
        asked.messages.clear()
        del data, content  # tens of megabytes, while the answer is waited for
        chat = Chat(self.name)
        if not asked.stream:
            return JSONResponse(chat.whole(await self.answer(job, request), prompt_tokens))
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        return sse(self.chat_events(chat, job, texts, prompt_tokens if with_usage else None))

    async def chat_events(
        self, chat: Chat, job: Job, texts: asyncio.Queue[str], prompt_tokens: int | None
    ) -> AsyncIterator[str]:
        yield chat.chunk({"role": "assistant", "content": ""})
        async for new in self.deltas(job, texts):
            yield chat.chunk({"content": new})
        answer = job.future.result()
        yield chat.chunk({}, finish_reason(answer), pam=details(answer))
        if prompt_tokens is not None:
            yield chat.event([], usage=usage_of(answer, prompt_tokens))
        yield END_OF_STREAM

    async def transcribe(self, request: Request) -> Response:
        limit = self.limits.megabytes * 1e6 + 1e5
        fields, content = await parse_form(request, await self.body(request, limit))
        asked = TranscriptionRequest.model_validate(fields)
        asked.check()
        self.check_model(asked.model)
        prompt = asked.prompt or TRANSCRIBE
        self.llm.count_tokens(prompt)
        texts, on_text = texts_of(asked.stream)
        job = await self.clip_job(content, prompt, None, "file", on_text)
        del content
        if asked.stream:
            return sse(self.transcript_events(job, texts))
        answer = await self.answer(job, request)
        text, media = transcription(answer, asked.response_format, asked.language)
        return Response(text, media_type=media)

    async def transcript_events(self, job: Job, texts: asyncio.Queue[str]) -> AsyncIterator[str]:
        async for new in self.deltas(job, texts):
            yield event({"type": "transcript.text.delta", "delta": new})
        answer = job.future.result()
        yield event({"type": "transcript.text.done", "text": answer.text, "pam": details(answer)})

    async def models(self, request: Request) -> Response:
        model = {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "pam",
            "experts": self.llm.model.experts if self.llm.model.router else [],
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, request: Request) -> Response:
        alive = self.batcher.is_open and self.batcher.thread.is_alive()
        return JSONResponse({"status": "ok" if alive else "stopping"}, 200 if alive else 503)

    async def report_metrics(self, request: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def make_app(
    llm: SpeechLLM,
    name: str,
    limits: Limits,
    key: str | None = None,
    own_name: str | None = None,
) -> FastAPI:
    """The ASGI application; arguments as of `Server`. At its end it answers what waits."""
    server = Server(llm, name, limits, key, own_name)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(server.batcher.close)

    app = FastAPI(title="PaM", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.server = server
    open_routes = {"/health": server.health}
    routes = {
        "/v1/chat/completions": ("POST", server.chat),
        "/v1/audio/transcriptions": ("POST", server.transcribe),
        "/v1/models": ("GET", server.models),
        "/metrics": ("GET", server.report_metrics),
    }
    for path, (method, handle) in routes.items():
        app.add_api_route(path, guarded(server, handle), methods=[method], response_model=None)
    for path, handle in open_routes.items():
        app.add_api_route(path, handle, methods=["GET"], response_model=None)
    add_error_handlers(app)
    app.add_middleware(Measured, metrics=server.metrics, paths={*routes, *open_routes})
    return app


def guarded(
    server: Server, handle: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """A route that looks at who asks before it reads the body."""

    async def route(request: Request) -> Response:
        server.check_sender(request)
        return await handle(request)

    return route


def add_error_handlers(app: FastAPI) -> None:
    """Every refused request gets OpenAI's `error` object."""

    async def refused(_request: Request, error: ApiError) -> Response:
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return JSONResponse(error.body(), error.status, headers)

    async def malformed(request: Request, error: ValidationError) -> Response:
        return await refused(request, invalid(*fault_of(error.errors())))

    async def unusable(request: Request, error: PamError) -> Response:
        return await refused(request, ApiError(400, str(error), "invalid_value"))

    async def unknown(request: Request, error: HTTPException) -> Response:
        code = str(error.detail).lower().replace(" ", "_")
        return await refused(request, ApiError(error.status_code, str(error.detail), code))

    async def failed(request: Request, _error: Exception) -> Response:
        return await refused(request, ApiError(500, "the server failed: see its log", "failed"))

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(ValidationError, malformed)
    app.add_exception_handler(PamError, unusable)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, failed)


class Measured:
    """ASGI middleware that counts requests and their time, to the end of a stream."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]):
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests.labels(path, status).inc()
            self.metrics.latency.labels(path).observe(time.monotonic() - started)


async def parse_form(request: Request, body: bytes) -> tuple[dict[str, object], bytes]:
    """The fields of a multipart form, and the content of its file; its name is not used."""

    async def stream() -> AsyncIterator[bytes]:
        yield body
        yield b""

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=1, max_fields=50).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise invalid("body", f"not a multipart form: {error}") from error
    fields: dict[str, object] = {k: v for k, v in form.multi_items() if isinstance(v, str)}
    granularities = form.getlist("timestamp_granularities[]")
    fields |= {"timestamp_granularities": granularities} if granularities else {}
    file = form.get("file")
    if file is None or isinstance(file, str):
        raise invalid("file", "missing: send the audio as a file")
    return fields, await file.read()


def awaitable(job: Job) -> "asyncio.Future[Answer]":
    """The answer of a job, for a coroutine to wait for. Its error is read from `job.future`;
    asyncio would log an error that nobody reads here, with its traceback."""
    future = asyncio.wrap_future(job.future)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


def texts_of(
    stream: bool,
) -> tuple["asyncio.Queue[str]", Callable[[str], None] | None]:
    """A queue of growing text, and what the model's thread calls to fill it; None if not asked."""
    texts: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def on_text(text: str) -> None:
        loop.call_soon_threadsafe(texts.put_nowait, text)

    return texts, on_text if stream else None


def sse(events: AsyncIterator[str]) -> StreamingResponse:
    """A stream of events; an error becomes its last event, since the status has been sent."""

    async def reporting() -> AsyncIterator[str]:
        try:
            async for one in events:
                yield one
        except ApiError as error:
            yield event(error.body())

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(reporting(), media_type="text/event-stream", headers=headers)


def client_gone() -> ApiError:
    return ApiError(CLIENT_GONE, "the client left", "client_gone")


async def disconnected(request: Request) -> None:
    """Return when the client has left; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
