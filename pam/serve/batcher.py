"""Answer concurrent requests together; a thread owns the model.

A batch has the requests that wait when the model becomes free. With exact decoding the answers are
those of single requests. Short recordings come first, so that they do not wait for long ones.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from pam.decode.answer import Answer
from pam.decode.api import SpeechLLM
from pam.decode.question import Question
from pam.errors import PamError
from pam.log import get_logger
from pam.serve.errors import overloaded
from pam.serve.limits import Limits

logger = get_logger(__name__)


class Job:
    """A question that waits for its answer.

    Attributes:
        seconds: of audio.
        future: gets the answer, or the error.
        on_text: called with the beginning of the answer whenever it has grown.
    """

    def __init__(
        self, question: Question, seconds: float, on_text: Callable[[str], None] | None = None
    ):
        self.is_wanted = True
        self.question = replace(question, watch=on_text, is_wanted=lambda: self.is_wanted)
        self.seconds = seconds
        self.future: Future[Answer] = Future()

    def cancel(self) -> None:
        """Nobody waits any more: it is not begun, or ends after the token that is computed."""
        self.is_wanted = False
        self.future.cancel()


class Batcher:
    """The queue and the thread that answers it; `close` answers what waits and ends the thread.

    `on_batch` is called with the size of each batch.
    """

    def __init__(self, llm: SpeechLLM, limits: Limits):
        self.llm, self.limits = llm, limits
        self.waiting: deque[Job] = deque()
        self.changed = threading.Condition()
        self.is_open = True
        self.on_batch: Callable[[int], None] = lambda size: None
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def refuse_if_full(self) -> None:
        """`ApiError` 503 if the server is full or stops."""
        with self.changed:
            if not self.is_open:
                raise overloaded("the server stops")
            self.waiting = deque(other for other in self.waiting if other.is_wanted)
            if len(self.waiting) >= self.limits.queue:
                raise overloaded(f"{len(self.waiting)} requests wait")

    def submit(self, job: Job) -> None:
        """Queue a job. `ApiError` 503 if the server is full or stops."""
        with self.changed:
            self.refuse_if_full()
            seconds = sum(other.seconds for other in self.waiting)
            if seconds + job.seconds > self.limits.queue_seconds:
                raise overloaded(f"requests with {seconds:.0f} s of audio wait")
            self.waiting.append(job)
            self.changed.notify()

    def close(self) -> None:
        with self.changed:
            self.is_open = False
            self.changed.notify()
        self.thread.join()

    def _run(self) -> None:
        while jobs := self._next_batch():
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if jobs:
                self.on_batch(len(jobs))
                self._answer(jobs)

    def _next_batch(self) -> list[Job]:
        """The next jobs, the shortest first; [] when the server is closed and nothing waits."""
        with self.changed:
            while self.is_open and not self.waiting:
                self.changed.wait()
            count = min(len(self.waiting), self.limits.batch)
            jobs = [self.waiting.popleft() for _ in range(count)]
        return sorted(jobs, key=lambda job: job.seconds)

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Answer jobs together; after an error, those without an answer one by one."""
        try:
            for number, answer in self.llm.answers([job.question for job in jobs]):
                jobs[number].future.set_result(answer)
            return
        except Exception as error:  # a request must not end the thread
            if len(jobs) == 1 and not jobs[0].future.done():
                if not isinstance(error, PamError):
                    logger.exception("a request failed")
                jobs[0].future.set_exception(error)
        # Not in the block above, where the error keeps the memory of the batch that failed.
        for job in (job for job in jobs if not job.future.done()):
            self._answer([job])
