"""Ask a trained model about audio files: prints the answer and the expert that was chosen."""

import argparse
import sys
from pathlib import Path

from pam.data.audio import load_audio
from pam.data.scp import one_line
from pam.errors import UserError, run_main


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument("--prompt", required=True, help='as in "Transcribe the speech."')
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    parser.add_argument("files", type=Path, nargs="+", help="audio files of any rate")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    clips = {file: clip for file in args.files if (clip := attempt(load_audio, file)) is not None}
    if clips:
        from pam.decode.api import SpeechLLM  # seconds of imports: not for files that are bad

        model = SpeechLLM.from_pretrained(args.exp, "cuda" if args.ngpu else "cpu")
    answered = 0
    for file, clip in clips.items():
        answer = attempt(model.generate, clip, args.prompt, max_new_tokens=args.max_new_tokens)
        if answer is not None:
            answered += 1
            print(f"{file}: {one_line(answer.text)}")
            if answer.expert is not None:
                probability = answer.posteriors[answer.expert]
                print(f"  expert: {answer.expert} (probability {probability:.3f})")
    return 0 if answered == len(args.files) else 1


def attempt(function, *args, **kwargs):
    """The result; None after one line on stderr where the audio cannot be used."""
    try:
        return function(*args, **kwargs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    run_main(main)
