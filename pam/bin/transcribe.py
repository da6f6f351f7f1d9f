"""Ask a trained model about audio files, and print each answer with the chosen expert.

For a file that cannot be used, there is one line on stderr. The other files are answered, and the
exit status is 1.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from pam.data.audio import load_audio
from pam.data.scp import one_line
from pam.device import device_for
from pam.errors import UserError, run_main

STDIN = "-"
Result = TypeVar("Result")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument("--prompt", required=True, help='for example "Transcribe the speech."')
    parser.add_argument("--max_new_tokens", type=int, default=128)
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
    clips = {file: clip for file in args.files if (clip := attempt(read, file)) is not None}
    if clips:
        from pam.decode.api import SpeechLLM  # the import takes seconds: files are checked first

        model = SpeechLLM.from_pretrained(args.exp, device)
    answered = 0
    for file, clip in clips.items():
        options = {"max_new_tokens": args.max_new_tokens, "name": file}
        answer = attempt(model.generate, clip, args.prompt, **options)
        if answer is not None:
            answered += 1
            print(f"{file}: {one_line(answer.text)}")
            if answer.expert is not None:
                probability = answer.posteriors[answer.expert]
                print(f"  expert: {answer.expert} (probability {probability:.3f})")
    return 0 if answered == len(set(args.files)) else 1


def print_any_text() -> None:
    """Make print write names of files that are not UTF-8 as their bytes."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def read(file: str) -> np.ndarray:
    """The samples of a file, or of standard input."""
    if file != STDIN:
        if Path(file).is_dir():
            raise UserError(f"{file}: this is a folder: give the audio files in it")
        return load_audio(file)
    with tempfile.NamedTemporaryFile() as copy:  # decoders need to seek
        copy.write(sys.stdin.buffer.read())
        copy.flush()
        try:
            return load_audio(copy.name)
        except UserError as error:
            raise UserError(str(error).replace(copy.name, "standard input")) from error


def attempt(function: Callable[..., Result], *args, **kwargs) -> Result | None:
    """The result; None, after one line on stderr, if the audio cannot be used."""
    try:
        return function(*args, **kwargs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    run_main(main)
