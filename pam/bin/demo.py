"""Open a page in the browser, to ask one or two trained systems about recordings.

    pam demo exp/pam_mini_short_s0
    pam demo exp/pam_mini_short_s0 exp/concat_mini_short_s0 --data dump/raw/*_test

Record or upload audio, choose or write a prompt; the page shows the answer, the experts with their
probabilities, and the layer weights of the chosen expert. --data adds clips to try. The page is
served to this machine only, unless --host says otherwise.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pam.device import device_for
from pam.errors import PamError, run_main
from pam.serve.address import bound

if TYPE_CHECKING:
    from gradio import Blocks


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exp", type=Path, nargs="+", help="exp/NAME with model.pth")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="data directories to try")
    parser.add_argument("--each", type=int, default=2, help="clips of each data directory")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: all networks")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    device, exps = device_for(args.ngpu), {exp.resolve().name: exp for exp in args.exp}
    if len(exps) < len(args.exp):
        raise PamError("two systems have the same name: rename the folder of one")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from pam.demo.page import make_page
    except ImportError as error:
        raise PamError(f"{error}: the page needs: pip install 'pam-speech-llm[demo]'") from error
    from pam.decode.api import SpeechLLM
    from pam.demo.examples import examples_of

    bound(args.host, args.port).close()  # before the models are loaded
    models = {name: SpeechLLM.from_pretrained(exp, device) for name, exp in exps.items()}
    with tempfile.TemporaryDirectory() as folder:
        examples = examples_of(args.data, args.each, Path(folder))
        launch(make_page(models, Path(folder), examples), Path(folder), args.host, args.port)
    return 0


def launch(
    page: "Blocks", folder: Path, host: str, port: int | None, prevent_thread_lock: bool = False
) -> None:
    """Serve the page and the files of `folder`; `port` None: a free one."""
    import gradio as gr

    from pam.demo.page import THEME

    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        theme=gr.themes.Default(**THEME),
        allowed_paths=[str(folder)],
        prevent_thread_lock=prevent_thread_lock,
        quiet=prevent_thread_lock,
    )


if __name__ == "__main__":
    run_main(main)
