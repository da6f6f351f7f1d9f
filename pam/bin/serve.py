"""Serve a trained model by HTTP, with the interfaces of OpenAI's API.

    pam serve exp/pam_mini_short_s0
    curl -F file=@a.wav -F model=pam_mini_short_s0 http://127.0.0.1:8000/v1/audio/transcriptions

Routes: /v1/chat/completions (one user message with a text and an input_audio part),
/v1/audio/transcriptions, /v1/models, /health, /metrics. Requests that wait are answered together;
the answers are those of single requests. The server listens on this machine only, unless --host
says otherwise. With --api_key, clients must send the key that is in $PAM_API_KEY; without it,
requests of web pages that another server has sent are refused.

SIGTERM and Ctrl-C: no new requests; those that have begun are answered.
"""

import argparse
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from pam.device import device_for
from pam.errors import PamError, run_main
from pam.log import get_logger
from pam.serve.address import bound
from pam.serve.limits import Limits

KEY = "PAM_API_KEY"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exp", type=Path, help="exp/NAME with model.pth")
    parser.add_argument("--name", help="of the model for clients; default: that of the folder")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: all networks")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one, which is logged")
    parser.add_argument("--api_key", action="store_true", help=f"ask for the key in ${KEY}")
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    parser.add_argument("--dtype", help="of the LLM's weights; default: that of the training")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--megabytes", type=float, default=Limits.megabytes, help="of a request")
    limits.add_argument("--seconds", type=float, default=Limits.seconds, help="of its audio")
    limits.add_argument("--tokens", type=int, default=Limits.tokens, help="of an answer")
    limits.add_argument("--queue", type=int, default=Limits.queue, help="requests that wait")
    limits.add_argument(
        "--queue_seconds", type=float, default=Limits.queue_seconds, help="of audio that waits"
    )
    limits.add_argument(
        "--batch", type=int, default=Limits.batch, help="requests that are answered together"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    device, key = device_for(args.ngpu), key_of(args)
    limits = Limits(**{name: getattr(args, name) for name in Limits.__dataclass_fields__})
    try:
        import uvicorn

        from pam.serve.app import make_app
        from pam.serve.pages import is_local
    except ImportError as error:
        raise PamError(f"{error}: the server needs: pip install 'pam-speech-llm[serve]'") from error
    from pam.decode.api import SpeechLLM

    with bound(args.host, args.port) as address:
        llm = SpeechLLM.from_pretrained(args.exp, device, args.dtype)
        own_name = args.host if is_local(address.getsockname()[0]) else None
        app = make_app(llm, args.name or args.exp.resolve().name, limits, key, own_name)
        get_logger(__name__).info("serving %s on %s", args.exp, args.host)
        most = 4 * limits.queue
        config = uvicorn.Config(app, args.host, args.port, limit_concurrency=most)
        # When all is answered, uvicorn raises the signal that it was stopped by again.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([address])
    return 0


def key_of(args: argparse.Namespace) -> str | None:
    """The key that clients must send; None for none."""
    if not args.api_key:
        return None
    if not os.environ.get(KEY):
        raise PamError(f"--api_key: ${KEY} is not set: export a long random text")
    return os.environ[KEY]


if __name__ == "__main__":
    run_main(main)
