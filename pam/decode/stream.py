"""An answer as text that comes piece by piece."""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Thread

from pam.decode.answer import Answer
from pam.decode.question import Watch


class Stream(Iterator[str]):
    """New text of an answer whenever there is some; joined, the parts are the answer's text.

    >>> stream = model.generate("a.wav", "Transcribe.", stream=True)  # doctest: +SKIP
    >>> for text in stream: print(text, end="")  # doctest: +SKIP
    >>> stream.answer.expert  # doctest: +SKIP

    A thread computes the answer. `close`, or that nobody holds the stream any more, ends it early.
    An error of the answer is raised where its text is asked for.

    Attributes:
        answer: the whole answer; None before the text has ended.
    """

    def __init__(self, answer: Callable[[Watch, Callable[[], bool]], Answer]):
        self.answer: Answer | None = None
        self._shown, self._closed = "", Event()
        self._queue: SimpleQueue[str | Answer | BaseException] = SimpleQueue()
        arguments = answer, self._queue, self._closed  # not the stream: it could never be freed
        self._thread = Thread(target=_run, args=arguments, daemon=True)
        self._thread.start()

    def __next__(self) -> str:
        while self.answer is None:
            found = self._queue.get()
            if isinstance(found, BaseException):
                self._queue.put(found)  # for a second call
                raise found
            if isinstance(found, Answer):
                self.answer = found
            text = found.text if isinstance(found, Answer) else found
            new, self._shown = text[len(self._shown) :], max(text, self._shown, key=len)
            if new:
                return new
        raise StopIteration

    def close(self) -> None:
        """End the answer after the token that is being computed, and wait for that."""
        self._closed.set()
        self._thread.join()

    def __del__(self) -> None:
        self._closed.set()


def _run(
    answer: Callable[[Watch, Callable[[], bool]], Answer],
    queue: "SimpleQueue[str | Answer | BaseException]",
    closed: Event,
) -> None:
    try:
        queue.put(answer(queue.put, lambda: not closed.is_set()))
    except BaseException as error:  # raised again by the thread that reads
        queue.put(error)
