"""Run Java programs: three metrics of captions, and the tokenizer that they share."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pam.errors import PamError
from pam.score.normalize import one_line

START_SECONDS = 60  # a program without an answer by then hangs; METEOR takes 7 s to load
TEXTS_PER_SECOND = 20  # lower limit for a working program
# Use a decimal point in any locale, and UTF-8 for input and output (stdout.encoding needs Java 19).
# Java's own errors must not appear among the answers.
PLAIN = (
    "-XX:+DisplayVMOutputToStderr",
    *("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8"),
    *("-Dstdout.encoding=UTF-8", "-Dstderr.encoding=UTF-8"),
)


def require_java(metric: str) -> None:
    if shutil.which("java") is None:
        raise PamError(f"{metric} needs Java: install a JRE (Debian: default-jre-headless)")


def time_limit(texts: int) -> float:
    """Time limit in seconds for a number of texts."""
    return START_SECONDS + texts / TEXTS_PER_SECOND


class Program:
    """A running Java program. If it ends early, `PamError` gives the cause.

    It is killed after `seconds`, and at the end of the `with` statement.
    """

    def __init__(self, name: str, command: Sequence[str], seconds: float, folder: Path | None):
        self.name, self.seconds, self.timed_out = name, seconds, False
        # A file, because a pipe without a reader would fill up.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # its child processes are killed with it
            )
        except OSError as error:
            raise PamError(f"{name}: java cannot be started: {error}") from error
        self._timer = threading.Timer(seconds, self._time_out)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._kill()
        self._process.wait()
        self._messages.close()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # unsent input of a program that died
                pipe.close()

    def ask(self, line: str, answers: int = 1) -> list[str]:
        """Send one line, and wait for `answers` lines."""
        with suppress(BrokenPipeError):  # it died: there is no answer then
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        lines = [self._process.stdout.readline() for _ in range(answers)]
        if not lines[-1].endswith("\n"):
            self._process.stdout.close()
            self._wait_for_end()
            raise PamError(f"{self.name}: its jar failed: {self.reason()}")
        return [text.rstrip("\r\n") for text in lines]

    def output(self, text: str = "") -> str:
        """Send `text`, wait for the program's end and return all its output."""
        out, _ = self._process.communicate(text)
        if self._process.returncode:
            raise PamError(f"{self.name}: its jar failed: {self.reason()}")
        return out

    def messages(self) -> str:
        """The program's standard error."""
        self._messages.seek(0)
        return self._messages.read().decode(errors="replace")

    def reason(self) -> str:
        """Why it ended: the line of its messages with the error, else the last line."""
        if self.timed_out:
            return f"no answer within {self.seconds:.0f} s, so it was stopped"
        lines = [line.strip() for line in self.messages().splitlines()]
        lines = [line for line in lines if line and not line.startswith("Picked up ")]
        if any("Virtual Machine" in line or "initialization of VM" in line for line in lines):
            return "; ".join(lines[:3])  # Java did not start; the reason takes several lines
        named = [line for line in lines if re.search(r"Exception|Error", line)]
        return (named or killed_by(self._process.returncode) or lines[-1:] or ["no message"])[0]

    def _time_out(self) -> None:
        self.timed_out = True
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait_for_end(self) -> None:
        """Wait for the exit status, which comes shortly after the end of the output."""
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()


def killed_by(status: int | None) -> list[str]:
    """The signal in an exit status, in the convention of Python, or of shells and Java.

    An empty list if there is none.
    """
    number = -status if (status or 0) < 0 else (status or 0) - 128
    names = [item.name for item in signal.Signals if item.value == number]
    return [f"killed by {name}: is there enough memory?" for name in names]


def java_version() -> int:
    """The major version: 8, 11, 17, …"""
    with Program("java -version", ["java", "-version"], START_SECONDS, None) as java:
        java.output()
        text = java.messages()
    if not (found := re.search(r'version "(?:1\.)?(\d+)', text)):
        raise PamError(f"java -version: no version in {text.strip()!r}: repair the installation")
    return int(found[1])


def tokenize(texts: Sequence[str]) -> list[str]:
    """coco-caption's tokens, joined by spaces: Penn Treebank style, lower case, no punctuation."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", *PLAIN, "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase"]
    lines = "".join(f"{one_line(text)}\n" for text in texts)
    with Program("the captions' tokenizer", command, time_limit(len(texts)), None) as program:
        tokenized = program.output(lines).split("\n")[:-1]
        if len(tokenized) != len(texts):
            counts = f"{len(texts)} captions in, {len(tokenized)} out"
            raise PamError(f"{jar}: {counts}: {program.reason()}")
    kept = ([w for w in line.split() if w not in ptbtokenizer.PUNCTUATIONS] for line in tokenized)
    return [" ".join(words) for words in kept]
