"""Ask a trained model about audio files, and print each answer with the chosen expert.

    pam transcribe --exp exp/NAME --prompt "Transcribe." a.wav b.flac
    pam transcribe --exp exp/NAME --prompt "Transcribe." --output out.jsonl "calls/**/*.wav"
    pam transcribe --exp exp/NAME --prompt "Transcribe." --format srt --output subtitles/ talk.mp3
    pam transcribe --exp exp/NAME --prompt "What can be heard?" --format txt data/my_test
    ffmpeg -i film.mkv -f wav - | pam transcribe --exp exp/NAME --prompt "Transcribe." -

A name is an audio file, a pattern, a data directory (Kaldi: its utterances, with segments), or "-",
one file from standard input. A recording that is longer than the model can take is cut into pieces;
their answers are printed too, and are the subtitles of --format srt.

--output is complete when it has its name. Until then the answers are in a file .jsonl.part beside
it (of FOLDER/, in it), where the same command goes on after a kill. A complete file of jsonl can be
added to: the same command answers only what is not there. Files of txt and srt do not say which
prompt they answer, so one that exists is an error. Two programs cannot write to one --output at
once.

For a recording that cannot be used, there is one line on stderr; the others are answered, and the
exit status is 1.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from pam.bin.transcripts import FORMATS, Output, output_for
from pam.data.audio import check_audio
from pam.data.recordings import Recording, by_name, is_data_dir, matches, utterances
from pam.data.scp import one_line
from pam.decode.chunks import in_chunks
from pam.decode.settings import (
    MAX_NEW_TOKENS,
    NO_SPEECH,
    REPEATED,
    add_skip_silence,
    check_threshold,
)
from pam.device import device_called, device_for
from pam.errors import PamError, run_main

if TYPE_CHECKING:
    from pam.decode.answer import Answer
    from pam.decode.api import SpeechLLM
    from pam.decode.question import Question

STDIN = "-"
TOGETHER = 8  # recordings that are answered at once
Result = TypeVar("Result")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument("--prompt", required=True, help='for example "Transcribe the speech."')
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="txt: lines of name and answer; jsonl: with all that is known; srt: subtitles; "
        "default: what the name of --output says, or answers with their experts",
    )
    parser.add_argument(
        "--output", metavar="FILE|FOLDER/", help="FOLDER/ gets a file for each recording"
    )
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        help="of an answer, or of that about a piece (default: as the experiment's scale says, or "
        f"{MAX_NEW_TOKENS})",
    )
    parser.add_argument(
        "--no_cut", action="store_true", help="do not cut files that are longer than training clips"
    )
    add_skip_silence(parser)
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    device.add_argument("--device", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "files",
        nargs="+",
        help=f"audio files of any sampling rate, patterns, data directories, or {STDIN}",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    print_any_text()
    device = device_called(args.device) if args.device else device_for(args.ngpu)
    if args.skip_silence is not None:
        check_threshold(args.skip_silence, "--skip_silence")
    asked = {"model": args.exp.resolve().name, "prompt": args.prompt}
    output = output_for(args.format, args.output, asked, default=Output(shown))
    with tempfile.NamedTemporaryFile() as copy:
        given = [name for pattern in args.files for name in attempt(matches, pattern) or [None]]
        found = [name and attempt(read, name, copy) for name in dict.fromkeys(given)]
        recordings = by_name(one for listed in found for one in listed or ())
        with output.alone():
            todo = output.missing(list(recordings.values()))
            answered = answer_all(args, device, todo, output) if recordings else 0
    return 0 if None not in found and answered == len(todo) else 1


def read(name: str, copy: IO[bytes]) -> list[Recording]:
    """The recordings of a name. Files are read to their end, utterances when they are answered."""
    if is_data_dir(name):
        return list(utterances(name))
    return [Recording(name, check(name, copy))]


def answer_all(
    args: argparse.Namespace, device: str, recordings: Sequence[Recording], output: Output
) -> int:
    """Write the answers about `recordings`. Returns how many there are."""
    answered = 0
    with output:
        if recordings:
            from pam.decode.api import SpeechLLM  # takes seconds: files are checked first

            model = SpeechLLM.from_pretrained(args.exp, device)
            for recording, answer in answers(model, recordings, args):
                output.add(recording, answer)
                answered += 1
    return answered


def answers(
    model: "SpeechLLM", recordings: Sequence[Recording], args: argparse.Namespace
) -> Iterator[tuple[Recording, "Answer"]]:
    """The answers, in the order of the recordings, without those that cannot be used."""
    for group in in_chunks(recordings, TOGETHER):
        asked = [(one, attempt(question, one, args, model)) for one in group]
        asked = [(one, made) for one, made in asked if made is not None]
        try:
            found = model.answer([made for _, made in asked])
        except PamError:  # of one of them: ask each alone
            found = [next(iter(attempt(model.answer, [made]) or [None])) for _, made in asked]
        for (recording, _), answer in zip(asked, found, strict=True):
            if answer is not None:
                yield recording, answer


def question(recording: Recording, args: argparse.Namespace, model: "SpeechLLM") -> "Question":
    from pam.decode.question import Question

    return Question(
        recording.audio(),
        args.prompt,
        max_new_tokens=model.max_new_tokens if args.max_new_tokens is None else args.max_new_tokens,
        name=recording.name,
        cut=not args.no_cut,
        skip_silence=args.skip_silence,
    )


def shown(recording: Recording, answer: "Answer") -> str:
    """An answer for readers, with its expert and what is doubtful."""
    lines = [f"{recording.name}: {one_line(answer.text)}"]
    if answer.expert is not None:
        probability = answer.posteriors[answer.expert]
        lines.append(f"  expert: {answer.expert} (probability {probability:.3f})")
    if answer.skipped:
        lines.append(f"  no speech (score {answer.no_speech:.2f}): skipped")
    elif answer.no_speech >= NO_SPEECH:
        lines.append(f"  no speech (score {answer.no_speech:.2f}): the answer may be invented")
    if answer.repetition >= REPEATED:
        lines.append(f"  the answer repeats itself (score {answer.repetition:.2f})")
    if answer.pieces:
        pieces = len(answer.pieces)
        lines.append(f"  longer than the model can take: cut into {pieces} pieces")
    for piece in answer.pieces:
        lines.append(f"  {piece.start:.1f} to {piece.end:.1f} s: {one_line(piece.text)}")
    return "\n".join(lines) + "\n"


def print_any_text() -> None:
    """Make print write names of files that are not UTF-8 as their bytes."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def check(file: str, copy: IO[bytes]) -> str:
    """Read a file to its end. Returns its path; standard input becomes the file `copy`, because
    decoders need to seek."""
    if file != STDIN:
        if Path(file).is_dir():
            raise PamError(
                f"{file}: this is a folder: give the audio files in it, or a pattern in quotes "
                f'("{Path(file) / "*.wav"}")'
            )
        check_audio(file)
        return file
    shutil.copyfileobj(sys.stdin.buffer, copy)
    copy.flush()
    try:
        check_audio(copy.name)
    except PamError as error:
        raise PamError(str(error).replace(copy.name, "standard input")) from error
    return copy.name


def attempt(function: Callable[..., Result], *args, **kwargs) -> Result | None:
    """The result; None, after one line on stderr, if the audio cannot be used."""
    try:
        return function(*args, **kwargs)
    except PamError as error:
        print(f"error: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    run_main(main)
