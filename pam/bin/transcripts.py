"""Answers about recordings as text, JSON lines or subtitles: printed, in a file, in a folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pam.atomic import complete_lines, write_text
from pam.data.recordings import Recording
from pam.data.scp import one_line
from pam.decode.answer import Answer
from pam.disk import writing
from pam.errors import PamError
from pam.lock import alone_at
from pam.serve.subtitles import pieces_of, srt

FORMATS = ("txt", "jsonl", "srt")
Form = Callable[[Recording, Answer], str]  # an answer as text, with the line's end
STDIN_NAME = "stdin"  # of the file of standard input
ANY_NAME = "surrogateescape"  # names of files that are not UTF-8 are written as their bytes
REMEDY = "give another --output, or remove the file"
FOREIGN = f"not written by pam transcribe: {REMEDY}"


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
        return json_line({"name": recording.name, **asked, **answer.as_dict()})

    return form


def json_line(entry: Mapping[str, Any]) -> str:
    try:
        line = json.dumps(entry, ensure_ascii=False)
        line.encode("utf-8")
    except UnicodeEncodeError:  # the name of a file that is not UTF-8
        line = json.dumps(entry)
    return line + "\n"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def lines_of(path: Path) -> Path:
    """The part of a file that is not of JSON lines."""
    return part_of(path.with_name(path.name + ".jsonl"))


class Output:
    """Where answers go: here, standard output. It is a context; with an error nothing is complete.

    Args:
        single: whether it can have only one recording.
    """

    def __init__(self, form: Form, single: bool = False):
        self.form, self.single = form, single

    def alone(self) -> AbstractContextManager[None]:
        """Context of all work with it. `PamError` if another program is in such a context."""
        return nullcontext()

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


class Kept(Output):
    """Answers that are kept as JSON lines in a file NAME.part, where a rerun continues. With the
    last answer, they become what the user asked for.

    Args:
        form: a line of the part.
        asked: entries that its lines must have, so that it has the answers to one question.
    """

    def __init__(self, part: Path, form: Form, asked: Mapping[str, str], single: bool = False):
        super().__init__(form, single)
        self.part, self.asked = part, asked
        self.file: TextIO | None = None

    def alone(self) -> AbstractContextManager[None]:
        return alone_at(self.part, "pam transcribe")

    def earlier(self) -> Path:
        """The file with the answers of an earlier run."""
        return self.part

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        done = {entry["name"] for entry in self.entries()}
        return [one for one in super().missing(recordings) if one.name not in done]

    def kept(self) -> list[str]:
        """The complete lines of an earlier run; a killed one may have left half a line."""
        file = self.earlier()
        if not file.is_file():
            return []
        try:
            return [f"{line}\n" for line in complete_lines(file)]
        except UnicodeDecodeError as error:
            raise PamError(f"{file}: {FOREIGN}") from error

    def entries(self) -> list[dict[str, Any]]:
        return [self.entry_in(line) for line in self.kept()]

    def entry_in(self, line: str) -> dict[str, Any]:
        """The content of a line. `PamError` if it does not answer this question."""
        file = self.earlier()
        try:
            entry: dict[str, Any] = json.loads(line)
            found = {key: entry[key] for key in ("name", *self.asked)}
        except (ValueError, KeyError, TypeError) as error:
            raise PamError(f"{file}: {FOREIGN}") from error
        for key, value in self.asked.items():
            if found[key] != value:
                was = f"{key} {found[key]!r}, now {value!r}"
                raise PamError(f"{file}: it was made with {was}: {REMEDY}")
        return entry

    def __enter__(self) -> Self:
        with writing(self.part):
            write_text(self.part, "".join(self.kept()))
            self.file = self.part.open("a", encoding="utf-8")
        return self

    def add(self, recording: Recording, answer: Answer) -> None:
        with writing(self.part):
            self.file.write(self.form(recording, answer))
            self.file.flush()

    def __exit__(self, *error) -> None:
        self.file.close()
        super().__exit__(*error)


class JsonLines(Kept):
    """A file of JSON lines, to which later runs add."""

    def __init__(self, path: Path, asked: Mapping[str, str]):
        super().__init__(part_of(path), as_json(asked), asked)
        self.path = path

    def earlier(self) -> Path:
        return self.part if self.part.is_file() else self.path

    def finish(self) -> None:
        self.part.replace(self.path)


class TextFile(Kept):
    """A file of text or subtitles. A line of the part has the text of an answer, and its file."""

    def __init__(
        self,
        path: Path,
        form: Form,
        asked: Mapping[str, str],
        single: bool,
        part: Path | None = None,
    ):
        super().__init__(part or lines_of(path), self.as_written, asked, single)
        self.path, self.text_of = path, form

    def file_of(self, recording: Recording) -> Path:
        return self.path

    def as_written(self, recording: Recording, answer: Answer) -> str:
        text, file = self.text_of(recording, answer), str(self.file_of(recording))
        return json_line({"name": recording.name, **self.asked, "file": file, "written": text})

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        names = {one.name for one in recordings}
        for entry in self.entries():
            if entry["name"] not in names:
                raise PamError(
                    f"{self.part}: an earlier command, which was killed, answered {entry['name']}: "
                    "repeat that command, or remove the file"
                )
        texts = self.texts()
        for file in map(self.file_of, recordings):
            # A run that was killed while files got their names has written some of them.
            text = texts.get(str(file), "").encode("utf-8", ANY_NAME)
            ours = self.part.exists() and file.is_file() and file.read_bytes() == text
            if file.exists() and not ours:
                raise PamError(
                    f"{file}: it exists: remove it or give another --output; --format jsonl can "
                    "add to a file"
                )
        return super().missing(recordings)

    def texts(self) -> dict[str, str]:
        """File → what the answers so far give for it."""
        texts: dict[str, str] = {}
        for entry in self.entries():
            texts[entry["file"]] = texts.get(entry["file"], "") + entry["written"]
        return texts

    def finish(self) -> None:
        for file, text in self.texts().items():
            with writing(file):
                write_text(file, text, errors=ANY_NAME)
        self.part.unlink()


class Folder(TextFile):
    """A file for each recording, NAME.txt or NAME.srt, which has the name of the audio file."""

    def __init__(self, path: Path, form: Form, asked: Mapping[str, str], suffix: str):
        part = lines_of(path / f"answers.{suffix}")
        super().__init__(path, form, asked, single=False, part=part)
        self.suffix = suffix

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
        return super().missing(recordings)


def output_for(
    form: str | None, path: str | None, asked: Mapping[str, str], default: Output
) -> Output:
    """The output of --format and --output. `PamError` if they do not fit each other."""
    if path is None:
        forms = {"txt": as_line, "jsonl": as_json(asked), "srt": as_srt}
        return Output(forms[form], single=form == "srt") if form else default
    form, is_folder = form or form_of(path), path.endswith("/") or Path(path).is_dir()
    if Path(path).exists() and not (is_folder or Path(path).is_file()):
        raise PamError(f"--output {path}: not a file: leave --output out to print the answers")
    if form == "jsonl":
        if is_folder:
            raise PamError(f"--output {path}: --format jsonl is one file: give {path}/NAME.jsonl")
        return JsonLines(Path(path), asked)
    asked = {**asked, "format": form}
    if is_folder:
        return Folder(Path(path), as_text if form == "txt" else as_srt, asked, form)
    return TextFile(Path(path), as_line if form == "txt" else as_srt, asked, form == "srt")


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
