"""Ask a trained model about audio files, and print each answer with the chosen expert.

A file that is longer than the model can take is cut into pieces; their answers are printed too.
For a file that cannot be used, there is one line on stderr. The other files are answered, and the
exit status is 1.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from pam.data.audio import check_audio
from pam.data.scp import one_line
from pam.decode.settings import NO_SPEECH, REPEATED, add_skip_silence, check_threshold
from pam.device import device_for
from pam.errors import PamError, run_main

if TYPE_CHECKING:
    from pam.decode.answer import Answer

STDIN = "-"
Result = TypeVar("Result")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument("--prompt", required=True, help='for example "Transcribe the speech."')
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument(
        "--no_cut", action="store_true", help="do not cut files that are longer than training clips"
    )
    add_skip_silence(parser)
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    parser.add_argument(
        "files",
        nargs="+",
        help=f"audio files of any sampling rate; {STDIN}: one file from standard input",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    print_any_text()
    device = device_for(args.ngpu)
    if args.skip_silence is not None:
        check_threshold(args.skip_silence, "--skip_silence")
    with tempfile.NamedTemporaryFile() as copy:
        found = {file: attempt(check, file, copy) for file in args.files}
        paths = {file: path for file, path in found.items() if path is not None}
        answered = answer_all(args, device, paths) if paths else 0
    return 0 if answered == len(found) else 1


def answer_all(args: argparse.Namespace, device: str, paths: dict[str, str]) -> int:
    """Print the answers about `paths`, {name: file}. Returns how many there are."""
    from pam.decode.api import SpeechLLM  # the import takes seconds: files are checked first

    model, answered = SpeechLLM.from_pretrained(args.exp, device), 0
    options = {
        "max_new_tokens": args.max_new_tokens,
        "cut": not args.no_cut,
        "skip_silence": args.skip_silence,
    }
    for name, path in paths.items():
        answer = attempt(model.generate, path, args.prompt, name=name, **options)
        if answer is not None:
            answered += 1
            show(name, answer)
    return answered


def show(name: str, answer: "Answer") -> None:
    print(f"{name}: {one_line(answer.text)}")
    if answer.expert is not None:
        probability = answer.posteriors[answer.expert]
        print(f"  expert: {answer.expert} (probability {probability:.3f})")
    if answer.skipped:
        print(f"  no speech (score {answer.no_speech:.2f}): skipped")
    elif answer.no_speech >= NO_SPEECH:
        print(f"  no speech (score {answer.no_speech:.2f}): the answer may be invented")
    if answer.repetition >= REPEATED:
        print(f"  the answer repeats itself (score {answer.repetition:.2f})")
    if answer.pieces:
        print(f"  longer than the model can take: cut into {len(answer.pieces)} pieces")
    for piece in answer.pieces:
        print(f"  {piece.start:.1f} to {piece.end:.1f} s: {one_line(piece.text)}")


def print_any_text() -> None:
    """Make print write names of files that are not UTF-8 as their bytes."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def check(file: str, copy: IO[bytes]) -> str:
    """Read a file to its end. Returns its path; standard input becomes the file `copy`, because
    decoders need to seek."""
    if file != STDIN:
        if Path(file).is_dir():
            raise PamError(f"{file}: this is a folder: give the audio files in it")
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
