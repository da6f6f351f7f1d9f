"""`pam serve` with the tests' toy model, whose answers have as many tokens as allowed.

toy_server.py CONFIG …     CONFIG: the model's configuration as JSON; then options of pam serve

The model begins no answer before a line of standard input, or its end.
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from torch import nn  # noqa: E402
from toys import ToyEncoder, build_with_lora  # noqa: E402

from pam.bin import serve  # noqa: E402
from pam.decode.api import SpeechLLM  # noqa: E402
from pam.errors import run_main  # noqa: E402


class HeldLLM(SpeechLLM):
    def answers(self, questions):
        sys.stdin.readline()
        yield from super().answers(questions)


def toy_llm(config: dict) -> HeldLLM:
    model = build_with_lora(config)
    encoders = {shape.name: ToyEncoder(shape.num_states, shape.dim) for shape in model.shapes}
    model.encoders = nn.ModuleDict(encoders)
    type(model.llm).eos = property(lambda self: -1)
    return HeldLLM(model.eval())


if __name__ == "__main__":
    config, *options = sys.argv[1:]
    SpeechLLM.from_pretrained = lambda *args: toy_llm(json.loads(config))
    run_main(lambda: serve.main(["toy", *options]))
