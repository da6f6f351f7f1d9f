"""Every YAML file loads with known options, and the shells read from it what Python reads."""

import importlib
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

from pam.bin import recipe
from pam.config import (
    Experiment,
    check_budget,
    check_keys,
    check_phases,
    keys_of,
    load_yaml,
    parse_value,
    plain,
    read_experiment,
    read_layers,
)
from pam.encoders import ENCODERS
from pam.fusion import FUSIONS, build_fusion
from pam.train.systems import combine

ROOT = Path(__file__).resolve().parents[2]
SCALES = sorted((ROOT / "conf/scale").glob("*.yaml"))
LLMS = sorted((ROOT / "conf/llm").glob("*.yaml"))
SYSTEMS = sorted((ROOT / "conf/systems").glob("*.yaml"))


def name(file: Path) -> str:
    return file.stem


@pytest.mark.parametrize("file", sorted((ROOT / "conf").rglob("*.yaml")), ids=name)
def test_loads(file):
    assert load_yaml(file)
    assert file.parent.name in ("scale", "systems", "llm", "prompts", "tables"), file


@pytest.mark.parametrize("file", SCALES, ids=name)
def test_scale_has_what_the_verbs_need(file):
    scale = load_yaml(file)
    check_keys(scale, keys_of(Experiment), str(file))
    for encoder, spec in scale["encoders"].items():
        assert ENCODERS.get(spec["family"]), encoder
    assert scale["feats"] in ("dumped", "online")
    assert [name for name in scale["budgets"] if name != "half"] == ["tiny", "short", "long"]


@pytest.mark.parametrize("scale", SCALES, ids=name)
@pytest.mark.parametrize("file", sorted(ROOT.glob("egs/*/conf/*.conf")), ids=str)
def test_sets_of_options_fit_every_scale(file, scale):
    """As in `run.sh --config conf/tiny.conf --scale paper`."""
    options = dict(re.findall(r"^(\w+)=(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE))
    assert options.get("budget", "short") in load_yaml(scale)["budgets"]


def meta_fusion(config: dict, width: int):
    """The fusion of a system without memory for its weights."""
    encoders = config["encoders"].values()
    with torch.device("meta"):
        return build_fusion(
            config["fusion"],
            dims=[encoder["dim"] for encoder in encoders],
            states=[encoder["num_states"] for encoder in encoders],
            width=width,
            num_experts=len(config["tasks"]),
            conf=config["fusion_conf"],
        )


def test_encoders_that_are_commented_out_could_be_used():
    text = (ROOT / "conf/scale/paper.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^  # (\w+): (\{family: .*\})$", text, re.MULTILINE)
    assert {"whisper_large_v3", "beats", "eat_base"} < {encoder for encoder, _ in lines}
    for encoder, spec in lines:
        spec = parse_value(spec)
        assert ENCODERS.get(spec["family"]), encoder
        assert spec.keys() - {"conf"} == {"family", "path", "dim", "num_states"}, encoder
        assert set(spec.get("conf", {})) <= {"dtype"}, encoder


@pytest.mark.parametrize("system", SYSTEMS, ids=name)
@pytest.mark.parametrize("scale", SCALES, ids=name)
def test_system_fits_the_scale(system, scale):
    conf = load_yaml(system)
    check_keys(conf, keys_of(Experiment), str(system))
    config = combine(load_yaml(scale), conf)
    assert meta_fusion(config, width=576)
    assert len(config["encoders"]) == len(conf.get("use_encoders", load_yaml(scale)["encoders"]))


def test_the_documents_list_every_system_with_its_size():
    """Trained weights at paper scale: Qwen2.5-3B is 2048 wide, its LoRA has 7 372 800."""
    results = (ROOT / "egs/multitask/RESULTS.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", results, re.MULTILINE))
    assert set(listed) == {system.stem for system in SYSTEMS}
    manual = (ROOT / "egs/multitask/README.md").read_text(encoding="utf-8")
    systems = manual.split("\n## Systems\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", systems, re.MULTILINE)) - {"NAME"} == set(listed)
    for system in SYSTEMS:
        config = combine(load_yaml(ROOT / "conf/scale/paper.yaml"), load_yaml(system))
        fusion = meta_fusion(config, 2048)
        router = 4 * 2049 if fusion.needs_gate else 0
        count = sum(p.numel() for p in fusion.parameters()) + router + 7_372_800
        assert f"{count / 1e6:.1f}" == listed[system.stem], system.stem


def test_every_fusion_has_a_system():
    used = {load_yaml(system)["fusion"] for system in SYSTEMS}
    assert used == set(FUSIONS.names())


@pytest.mark.parametrize("fusion", ["single", "single_all_layers"])
@pytest.mark.parametrize("scale", SCALES, ids=name)
def test_single_systems_hear_with_different_encoders(scale, fusion):
    found = [
        list(combine(load_yaml(scale), load_yaml(system))["encoders"])
        for system in SYSTEMS
        if load_yaml(system)["fusion"] == fusion
    ]
    assert len({*map(tuple, found)}) == len(found) == 3
    assert all(len(encoders) == 1 for encoders in found)


@pytest.mark.parametrize("llm", LLMS, ids=name)
def test_an_llm_changes_the_llm_only(llm):
    from pam.config import check_init_options
    from pam.llm.causal_lm import CausalLM

    plain = combine(*read_layers(SCALES[0], SYSTEMS[0]))
    config = combine(*read_layers(SCALES[0], SYSTEMS[0], llm))
    assert {key for key in config if config[key] != plain[key]} <= {"llm_conf"}
    options = {k: v for k, v in config["llm_conf"].items() if k != "path"}
    check_init_options(CausalLM, options, str(llm))
    assert config["llm_conf"]["path"] == load_yaml(llm)["llm_conf"]["path"]


@pytest.mark.parametrize("scale", SCALES, ids=name)
@pytest.mark.parametrize(
    ("system", "llm"),
    [*((system, None) for system in SYSTEMS), *((SYSTEMS[0], llm) for llm in LLMS)],
    ids=lambda file: file and file.stem,
)
def test_every_option_is_known(scale, system, llm):
    experiment = read_experiment(scale, system, llm)
    for name, budget in experiment.budgets.items():
        check_budget(budget, name, "ctc")
    check_phases(experiment.phases, "ctc", per_gpu=True)


def test_the_examples_of_the_help_are_options_that_exist():
    """Of `./run.sh --help` and of the programs that have --set."""
    examples = dict(
        re.findall(
            r'^(?:train|decode|score)_args= .* (pam\.bin\.\w+), such as "(.+)"$',
            (ROOT / "utils/options.sh").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    assert examples.keys() == {"pam.bin.train", "pam.bin.decode", "pam.bin.score"}
    settings = []
    for program, example in examples.items():
        parser = importlib.import_module(program).get_parser()
        for action in parser._actions:
            action.required = False
        args = parser.parse_args(shlex.split(example))
        settings += getattr(args, "set", [])
    for program in ("train", "plan", "params"):
        parser = importlib.import_module(f"pam.bin.{program}").get_parser()
        settings += re.findall(r"--set KEY=VALUE\s+e\.g\. (\S+)", parser.format_help())
    assert len(settings) == 4
    for scale in SCALES:
        assert combine(*read_layers(scale, ROOT / "conf/systems/pam.yaml"), settings)


@pytest.mark.parametrize("llm", ["", *(file.stem for file in LLMS)])
@pytest.mark.parametrize("scale", [file.stem for file in SCALES])
def test_recipes_read_what_training_reads(scale, llm):
    options = {"scale": scale, "system": "pam", "llm": llm}
    conf = recipe.configuration(options, ROOT / "conf")
    files = [ROOT / f"conf/{kind}/{name}.yaml" for kind, name in (("scale", scale), ("llm", llm))]
    trained = plain(read_experiment(files[0], ROOT / "conf/systems/pam.yaml", llm and files[1]))
    for key in ("encoders", "llm_conf", "budgets"):
        assert conf[key].keys() == trained[key].keys(), key
    assert conf["llm_conf"]["path"] == trained["llm_conf"]["path"]


@pytest.mark.parametrize("script", sorted(ROOT.glob("[ue]*s/**/*.sh")), ids=name)
def test_no_shell_parses_yaml_or_json(script):
    """What is left of sed and awk reads the options of shell scripts."""
    text = script.read_text(encoding="utf-8")
    used = {word for word in ("sed", "awk", "grep", "jq") if re.search(rf"\b{word}\b", text)}
    reads_options = script.name in ("parse_options.sh", "new_recipe.sh")
    assert used <= ({"sed", "awk"} if reads_options else set())
    assert not re.search(r"\b(sed|awk)\b.*\.(ya?ml|json)", text)


def test_every_dependency_is_pinned(monkeypatch):
    found: dict = {}
    monkeypatch.setattr("setuptools.setup", lambda **options: found.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    wanted = [*found["install_requires"], *sum(found["extras_require"].values(), [])]
    pins = (ROOT / "tools/constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(pin) for pin in pins if "==" in pin}
    assert {"espnet", "ruff"} < {canonical(name) for name in wanted} <= pinned


def canonical(requirement: str) -> str:
    """The name of a requirement, as package indices compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
