"""Fixtures that several rooms use: a tiny LLM on disk, a tiny Speech LLM, a tiny combined set."""

import os
import shutil
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook  # noqa: E402

# Shapes and types of these rooms are checked while tests run; before pam is imported.
install_import_hook(["pam.fusion", "pam.llm", "pam.model"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
from toys import MILLISECONDS, ToyEncoder, build_with_lora, make_batch, small_config  # noqa: E402

SLOW = Path(__file__).with_name("slow.txt")
SLOW_SECONDS = 1.0  # of all cases of a test function together

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_FLAGS = (
    "--no-sandbox",  # root in a container has none; the pages are the tests' own
    "--autoplay-policy=no-user-gesture-required",
)

TINY = {  # a random LLM
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "initializer_range": 0.2,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--measure", action="store_true", help="write test/slow.txt from what the tests take"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.measure and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Measure())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests; start with the files that take longest, so that all workers end
    together."""
    slow, of_file = read_slow(), Counter()
    for name, seconds in slow.items():
        of_file[file_of(name)] += seconds
    for item in items:
        if function_of(item.nodeid) in slow:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: -of_file[file_of(item.nodeid)])


class Measure:
    """The seconds of each test function that runs; those that do not run keep their line."""

    def __init__(self):
        self.seconds = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[function_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        found = read_slow() | self.seconds
        lines = [f"{s:.1f} {name}\n" for name, s in sorted(found.items()) if s >= SLOW_SECONDS]
        SLOW.write_text("".join(lines))


def function_of(nodeid: str) -> str:
    return nodeid.partition("[")[0]


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def read_slow() -> dict[str, float]:
    """{test function: its seconds} of test/slow.txt."""
    lines = (line.split() for line in SLOW.read_text().splitlines())
    return {name: float(seconds) for seconds, name in lines}


@pytest.fixture(autouse=True)
def the_precision_of_every_test():
    """PyTorch's own. A test whose device is a GPU, real or not, turns TF32 on for its process."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory) -> str:
    """A folder with a random two-layer Llama and a byte tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-llm"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0} | {symbol: i + 1 for i, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **TINY)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_qwen(tiny_llm, tmp_path_factory) -> str:
    """A folder with a random two-layer Qwen2, whose queries, keys and values have a bias."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-qwen"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **TINY)
    llm = Qwen2ForCausalLM(config)
    for name, parameter in llm.named_parameters():
        if name.endswith("_proj.bias"):  # they start as zero
            torch.nn.init.normal_(parameter, std=0.5)
    llm.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def no_figures(monkeypatch):
    """Reports and tables without figures, which take seconds."""
    for program in ("report", "table"):
        monkeypatch.setattr(f"pam.bin.{program}.can_draw", lambda: False)


@pytest.fixture
def figures(no_figures, monkeypatch):
    """Figures, in tests that have `no_figures`."""
    from pam.report.figures import can_draw

    for program in ("report", "table"):
        monkeypatch.setattr(f"pam.bin.{program}.can_draw", can_draw)


@pytest.fixture
def tiny_config(tiny_llm) -> dict:
    return small_config(tiny_llm)


@pytest.fixture
def tiny_model(tiny_config):
    return build_with_lora(tiny_config)


@pytest.fixture
def speech_llm(tiny_model):
    """The API of a tiny model whose encoders are toys."""
    from pam.decode.api import SpeechLLM

    encoders = {s.name: ToyEncoder(s.num_states, s.dim) for s in tiny_model.shapes}
    tiny_model.encoders = torch.nn.ModuleDict(encoders)
    return SpeechLLM(tiny_model.eval())


@pytest.fixture(scope="module")
def browser():
    """Playwright's Chromium if it is installed, otherwise the system's."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        program = own if own.exists() else next(filter(None, map(shutil.which, BROWSERS)), None)
        if program is None:
            pytest.skip("no Chromium: run `playwright install chromium`, or install your system's")
        browser = playwright.chromium.launch(
            executable_path=program, args=BROWSER_FLAGS, timeout=MILLISECONDS
        )
        expect.set_options(timeout=MILLISECONDS)
        yield browser
        browser.close()


@pytest.fixture
def batch(tiny_model) -> dict:
    return make_batch(
        tiny_model,
        prompts=["Write it down.", "How many speakers?", "Write it down."],
        texts=["hello there", "two", "a"],
        tasks=[0, 2, 0],
        frames=[7, 4, 5],
    )
