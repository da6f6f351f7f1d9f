"""Answers about recordings as text, JSON lines or subtitles: printed, in a file, in a folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pam.atomic import write_text
from pam.data.recordings import Recording
from pam.data.scp import one_line
from pam.decode.answer import Answer
from pam.disk import writing
from pam.errors import PamError
from pam.serve.subtitles import pieces_of, srt

FORMATS = ("txt", "jsonl", "srt")
Form = Callable[[Recording, Answer], str]  # an answer as text, with the line's end
STDIN_NAME = "stdin"  # of the file of standard input


def as_line(recording: Recording, answer: Answer) -> str:
    """NAME TEXT: a line of a Kaldi text file."""
    return f"{recording.name} {one_line(answer.text)}\n"


def as_text(recording: Recording, answer: Answer) -> str:
    """The text alone, for a file of its own."""
    return f"{answer.text}\n"


def as_srt(recording: Recording, answer: Answer) -> str:
    return srt(pieces_of(answer))


def as_json(asked: Mapping[str, str]) -> Form:
    """A line of JSON with the name, what was `asked`, and all of the answer."""

    def form(recording: Recording, answer: Answer) -> str:
        entry = {"name": recording.name, **asked, **answer.as_dict()}
        try:
            line = json.dumps(entry, ensure_ascii=False)
            line.encode("utf-8")
        except UnicodeEncodeError:  # the name of a file that is not UTF-8
            line = json.dumps(entry)
        return line + "\n"

    return form


class Output:
    """Where answers go: here, standard output. It is a context; with an error nothing is complete.

    Args:
        single: whether it can have only one recording.
    """

    def __init__(self, form: Form, single: bool = False):
        self.form, self.single = form, single

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        """The recordings whose answers are not there yet. `PamError` if it cannot take them."""
        if self.single and len(recordings) > 1:
            count = f"{len(recordings)} recordings"
            raise PamError(f"--format srt: {count} have a file each: give --output FOLDER/")
        return list(recordings)

    def add(self, recording: Recording, answer: Answer) -> None:
        print(self.form(recording, answer), end="", flush=True)

    def finish(self) -> None:
        """All answers are there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()


class TextFile(Output):
    """A file that is written as a whole, when all answers are there."""

    def __init__(self, path: Path, form: Form, single: bool):
        super().__init__(form, single)
        self.path, self.parts = path, []

    def add(self, recording: Recording, answer: Answer) -> None:
        self.parts.append(self.form(recording, answer))

    def finish(self) -> None:
        with writing(self.path):
            write_text(self.path, "".join(self.parts))


class Folder(Output):
    """A file for each recording, NAME.txt or NAME.srt, which has the name of the audio file."""

    def __init__(self, path: Path, form: Form, suffix: str):
        super().__init__(form)
        self.path, self.suffix = path, suffix

    def file_of(self, recording: Recording) -> Path:
        return self.path / f"{stem_of(recording)}.{self.suffix}"

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        homes: dict[Path, Recording] = {}
        for recording in recordings:
            first = homes.setdefault(self.file_of(recording), recording)
            if first != recording:
                raise PamError(
                    f"{self.file_of(recording)}: both {first.name} and {recording.name} would be "
                    "written there: use --format jsonl"
                )
        return list(recordings)

    def add(self, recording: Recording, answer: Answer) -> None:
        path = self.file_of(recording)
        with writing(path):
            write_text(path, self.form(recording, answer))


class JsonLines(Output):
    """A file of JSON lines. It is written as NAME.part, where a rerun continues, and then renamed.

    Args:
        asked: entries that its lines must have, so that it has the answers to one question.
    """

    def __init__(self, path: Path, asked: Mapping[str, str]):
        super().__init__(as_json(asked))
        self.path, self.asked = path, asked
        self.part = path.with_name(path.name + ".part")
        self.file: TextIO | None = None

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        done = {self.name_in(line) for line in self.kept()}
        return [recording for recording in recordings if recording.name not in done]

    def kept(self) -> list[str]:
        """The complete lines of an earlier run; a killed one may have left half a line."""
        files = [file for file in (self.part, self.path) if file.is_file()]
        lines = files[0].read_text(encoding="utf-8").splitlines(keepends=True) if files else []
        return [line for line in lines if line.endswith("\n")]

    def name_in(self, line: str) -> str:
        """The name in a line. `PamError` if the line does not answer this question."""
        remedy = "give another --output, or remove the file"
        try:
            entry: dict[str, Any] = json.loads(line)
            name, found = entry["name"], {key: entry[key] for key in self.asked}
        except (ValueError, KeyError, TypeError) as error:
            raise PamError(f"{self.path}: not written by pam transcribe: {remedy}") from error
        for key, value in self.asked.items():
            if found[key] != value:
                was = f"{key} {found[key]!r}, now {value!r}"
                raise PamError(f"{self.path}: it was made with {was}: {remedy}")
        return name

    def __enter__(self) -> Self:
        with writing(self.part):
            write_text(self.part, "".join(self.kept()))
            self.file = self.part.open("a", encoding="utf-8")
        return self

    def add(self, recording: Recording, answer: Answer) -> None:
        with writing(self.path):
            self.file.write(self.form(recording, answer))
            self.file.flush()

    def __exit__(self, *error) -> None:
        self.file.close()
        super().__exit__(*error)

    def finish(self) -> None:
        self.part.replace(self.path)


def output_for(
    form: str | None, path: str | None, asked: Mapping[str, str], default: Output
) -> Output:
    """The output of --format and --output. `PamError` if they do not fit each other."""
    if path is None:
        forms = {"txt": as_line, "jsonl": as_json(asked), "srt": as_srt}
        return Output(forms[form], single=form == "srt") if form else default
    form, is_folder = form or form_of(path), path.endswith("/") or Path(path).is_dir()
    if form == "jsonl":
        if is_folder:
            raise PamError(f"--output {path}: --format jsonl is one file: give {path}/NAME.jsonl")
        return JsonLines(Path(path), asked)
    if is_folder:
        return Folder(Path(path), as_text if form == "txt" else as_srt, form)
    return TextFile(Path(path), as_line if form == "txt" else as_srt, single=form == "srt")


def form_of(path: str) -> str:
    """The format that the end of a file's name says."""
    form = Path(path).suffix.removeprefix(".")
    if form not in FORMATS:
        raise PamError(f"--output {path}: give --format {', '.join(FORMATS)}")
    return form


def stem_of(recording: Recording) -> str:
    """The name of a recording's own file, without suffix."""
    if recording.name == "-":
        return STDIN_NAME
    return Path(recording.name).stem if recording.name == recording.path else recording.name
