"""Sizes against the paper's, and against models that are really built."""

import json

import pytest
import torch
from toys import write_architectures

from pam.bin import params
from pam.config import load_yaml, read_layers
from pam.errors import PamError
from pam.fusion import FUSIONS
from pam.model import architecture as architectures
from pam.model.architecture import architecture, architecture_names, count, encoder_flops, on_meta
from pam.model.build import build_model
from pam.model.sizes import llm_with_lora, sizes
from pam.paths import conf_file, conf_names
from pam.train.systems import combine

PAPER = load_yaml(params.PAPER)
SCALES, SYSTEMS, LLMS = (conf_names(kind) for kind in ("scale", "systems", "llm"))


def config_of(scale, system, llm=None):
    files = conf_file("scale", scale), conf_file("systems", system)
    return combine(*read_layers(*files, llm and conf_file("llm", llm)))


@pytest.mark.parametrize(
    "system, part, millions",
    [
        ("concat", "trainable", 37.27),
        ("pam_reduced", "trainable", 29.29),
        ("pam_reduced", "active", 26.53),
        ("pam_reduced", "expert", 0.92),
        ("pam", "expert", 25.17),
        ("pam", "trainable", 150.53),
        ("pam", "active", 75.03),
        ("pam", "lora", 7.37),
    ],
)
def test_systems_of_the_paper(system, part, millions):
    count = sizes(config_of("paper", system)).as_dict()[part]
    assert round(count / 1e6, 2) == millions
    printed = PAPER["systems"].get(system, {}).get(part)
    assert printed is None or int(count / 1e6 * 10) / 10 == printed or int(count / 1e6) == printed


BEYOND = [
    *(f"single_all_layers_{encoder}" for encoder in ("whisper", "wavlm", "wav2vec2")),
    *("concat_all_layers", "concat_norm_layers", "transformer", "prompt_mixture"),
]


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize("system", BEYOND)
def test_baselines_beyond_the_paper_train_what_pam_uses(system, scale):
    """Within 5 % of PaM's active parameters, also without LoRA, which is the same in all."""
    pam, own = (sizes(config_of(scale, name)) for name in ("pam", system))
    assert own.lora == pam.lora and own.active == own.trainable
    assert own.trainable == pytest.approx(pam.active, rel=0.05)
    assert own.trainable - own.lora == pytest.approx(pam.active - pam.lora, rel=0.05)


def test_every_system_beyond_the_paper_is_in_its_table():
    rows = load_yaml(conf_file("tables", "beyond"))["rows"].values()
    papers = {"pam", "pam_no_label", "concat"}
    assert {row["system"] for row in rows} == {*BEYOND, *papers}
    assert {name for name in SYSTEMS if name in BEYOND} == set(BEYOND)


@pytest.mark.parametrize(
    "name, millions",
    [
        ("qwen2.5-3b", 7.37),
        ("qwen2.5-7b", 10.09),
        ("llama-3.2-3b", 9.18),
        ("llama-3.1-8b", 13.63),
    ],
)
def test_lora_of_the_papers_llms(name, millions):
    llm, frozen = llm_with_lora(config_of("paper", "pam", name)["llm_conf"])
    assert round((count(llm) - frozen) / 1e6, 2) == millions
    assert int(millions) == PAPER["lora"][name]


@pytest.mark.parametrize("name", PAPER["encoders"])
def test_encoders_of_the_paper(name):
    assert count(on_meta(name)) / 1e6 == pytest.approx(PAPER["encoders"][name], rel=0.01)


@pytest.mark.parametrize("scale", SCALES)
def test_the_configured_shapes_are_those_of_the_architectures(scale):
    for spec in load_yaml(conf_file("scale", scale))["encoders"].values():
        if spec["family"] == "yamnet":  # not a state of each layer; check_shapes knows its shape
            continue
        model = on_meta(spec["path"])
        layers = getattr(model, "blocks", None) or getattr(model, "encoder", model).layers
        width = getattr(model.config, "channels", None) or model.config.hidden_size
        assert (spec["dim"], spec["num_states"]) == (width, len(layers) + 1)


def test_every_configured_model_has_an_architecture():
    configs = [load_yaml(conf_file("scale", name)) for name in SCALES]
    paths = [spec["path"] for config in configs for spec in config["encoders"].values()]
    paths += [config["llm_conf"]["path"] for config in configs]
    paths += [load_yaml(conf_file("llm", name))["llm_conf"]["path"] for name in LLMS]
    assert all(architecture(path)["class"] for path in paths)


@pytest.fixture
def toy_architectures(tmp_path, monkeypatch, tiny_llm):
    """The tiny LLM and encoder of the other tests, known by their sizes only."""
    write_architectures(tmp_path, tiny_llm)
    monkeypatch.setattr(architectures, "FOLDER", tmp_path)


@pytest.mark.parametrize("name", FUSIONS.names())
@pytest.mark.parametrize("scale", ["none", "embedding"])
def test_counts_are_those_of_the_model_that_is_built(tiny_config, toy_architectures, name, scale):
    config = tiny_config | {"fusion": name, "fusion_conf": {}}
    config["model_conf"] = {"bf16": False, "feature_scale": scale}
    config["model_conf"]["exits"] = {"gate": scale == "embedding"}
    if name.startswith("single"):
        config["encoders"] = {"first": config["encoders"]["first"]}
    model, counted = build_model(config), sizes(config)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert counted.trainable == sum(p.numel() for p in trained)
    assert counted.llm == count(model.llm) - counted.lora
    routed = getattr(model.fusion, "experts", None) or [torch.nn.Module()]
    assert counted.active == counted.trainable - (len(routed) - 1) * count(routed[0])
    assert counted.total == counted.trainable + counted.llm + sum(counted.encoders.values())


def test_flops_of_a_transformer():
    """Whisper small: 2 per parameter and frame of its layers, attention, convolutions."""
    width, layers, frames, mels = 768, 12, 1500, 80
    linear = 2 * 12 * width**2 * layers * frames
    attention = 2 * 2 * frames**2 * width * layers
    convolutions = 2 * 3 * (mels * width * 3000 + width * width * frames)
    assert encoder_flops("openai/whisper-small") == (linear + attention + convolutions, 30)


def test_names(tmp_path):
    assert architecture("Qwen/Qwen2.5-3B-Instruct") == architecture("/models/qwen2.5-3b/")
    assert architecture("cache:whisper-tiny-en")["config"]["d_model"] == 384
    with pytest.raises(PamError, match="unknown architecture: did you mean 'whisper-ti"):
        architecture("openai/whisper-tiney")
    assert len(architecture_names()) >= 19


def test_the_command_prints_our_counts_beside_the_papers(capsys):
    params.main(["--scale", "paper", "--system", "pam_reduced"])
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("| pam_reduced |"))
    assert "| 29.29 (29) | 26.53 (26) |" in row and "| 0.92 (0.9) |" in row
    assert "| whisper-medium | 307.22 | 307 |" in out
    assert "| llama-3.1-8b | 8030.3 | 13.63 | 13 |" in out


def test_json_has_every_system(capsys):
    params.main(["--scale", "mini", "--json", "--set", "llm_conf.lora_targets=all-linear"])
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    left_out = [line.split()[0] for line in captured.err.splitlines() if "is left out" in line]
    assert {row["system"] for row in rows} | set(left_out) == set(SYSTEMS)
    keys = ["system", "encoders", "adapters", "experts", "expert", "router", "lora"]
    keys += ["total", "trainable", "active"]
    assert all(set(keys) <= row.keys() for row in rows)
    per_layer = (576 + 576) * 2 + (576 + 192) * 2 + (576 + 1536) * 3
    assert rows[0]["lora"] == 30 * 32 * per_layer


def test_wrong_options_are_one_line():
    with pytest.raises(
        PamError, match="systems/pm.yaml: there is no such file: did you mean 'pam'"
    ):
        params.main(["--system", "pm"])
    with pytest.raises(PamError, match="unknown option 'rnk'"):
        params.main(["--system", "pam", "--set", "fusion_conf.rnk=3"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "llm_conf={}"], "the configuration: llm_conf: path is missing"),
        (["--system", "pam", "--set", "llm_conf={}"], "llm_conf: path is missing"),
        (["--system", "EMPTY"], "the configuration: fusion is missing"),
        (["--system", "pam", "--set", "fusion_conf.rank=99999999999999999999"], "at most 21474"),
    ],
)
def test_a_system_that_lacks_a_part_is_one_line(tmp_path, options, message):
    file = tmp_path / "empty.yaml"
    file.write_text("{}")
    with pytest.raises(PamError, match=message):
        params.main([str(file) if option == "EMPTY" else option for option in options])
