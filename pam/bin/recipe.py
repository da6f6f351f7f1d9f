"""Check a recipe's options, resolve them, and print shell assignments (utils/recipe.sh).

python -m pam.bin.recipe stage=1 system=pam …     every option of the run.sh of this folder
"""

import functools
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.bin.recipe_checks import Options, check_choice, check_options, guess
from pam.config import read_layers
from pam.config.made import FOLDER, differences, digest, flatten, read_record
from pam.device import cores
from pam.errors import PamError, run_main
from pam.paths import cache_dir
from pam.score import SBERT

ROOT = Path(__file__).resolve().parents[2]
OPTION = re.compile(r"^([a-z][a-z0-9_]*)=(\S*)", re.MULTILINE)
FROM_ENVIRONMENT = re.compile(r"\$\{\w+:-(.*)\}")
LISTS = ("train_sets", "dev_sets", "test_sets")
MORE = "more_sets"  # sets that a recipe can prepare, besides those of its lists
MOST_PROCESSES = 4  # processes on a CPU where no number is given: each has an LLM in memory
FOLDER_OF_DB = re.compile(rf"^({FOLDER.pattern})=", re.MULTILINE)


def main(argv: list[str] | None = None) -> None:
    given = dict(text.split("=", 1) for text in (sys.argv[1:] if argv is None else argv))
    for name, value in resolve(given, Path.cwd()).items():
        print(f"{name}={shell(value)}")


def shell(value: str | Sequence[str]) -> str:
    """A value quoted for bash: a word, or an array of words."""
    return shlex.quote(value) if isinstance(value, str) else f"({shlex.join(value)})"


def resolve(options: Options, recipe: Path, root: Path | None = None) -> dict[str, Any]:
    """Names and values for utils/recipe.sh; PamError for an invalid option."""
    root = root or Path(os.environ.get("PAM_ROOT", ROOT))
    conf = configuration(options, root / "conf")
    known, own = known_options(recipe, root)
    check_options(options, conf, known)
    feats = options["feats"] or conf["feats"]
    check_choice("feats", feats, ["dumped", "online"])
    sets = sets_of(options, recipe)
    every = list(dict.fromkeys(name for listed in sets.values() for name in listed))
    corpora = options["corpora"].split()
    sources = {
        corpus: folders_of(recipe.parent / corpus, options["datadir"])
        for corpus in corpora or [recipe.name]
    }
    own = [] if corpora else own  # the corpora's own recipes prepare their data
    parts = parts_of(sets, options, recipe) if corpora else {}
    wanted = [corpus for corpus, part in parts.items() if any(part.values())]
    check_variables({recipe.parent / corpus: sources[corpus] or {} for corpus in wanted})
    if int(options["stop_stage"]) >= 2:
        for corpus, part in parts.items() if corpora else [(recipe.name, sets)]:
            names = itertools.chain(*part.values())
            check_folders(names, Path(options["dumpdir"]) / "raw", sources[corpus] or {})
    folders = {} if corpora else sources[recipe.name] or {}
    expname = options["expname"] or "_".join(
        filter(None, (options["system"], options["scale"], options["llm"], options["budget"]))
    ) + f"_s{options['seed']}"  # fmt: skip
    tag = options["inference_tag"] or f"greedy_{options['prompts']}"
    made_with = {name: options[name] for name in ("size", *own) if name != "download"}
    raw = f"{options['dumpdir']}/raw"
    exp = f"{options['expdir']}/{expname}"
    return {
        **processes(options),
        "feats": feats,
        "exp": exp,
        "decoded": f"{exp}/{tag}",
        "scale_config": str(root / f"conf/scale/{options['scale']}.yaml"),
        "system_config": str(root / f"conf/systems/{options['system']}.yaml"),
        "llm_path": (conf.get("llm_conf") or {}).get("path", ""),
        "llm_config": options["llm"] and str(root / f"conf/llm/{options['llm']}.yaml"),
        "combined": combined(options, made_with, sets, feats, conf),
        "encoders": list(conf["encoders"]) if feats == "dumped" else [],
        "models": missing_models(conf, options["metrics"]),
        "sets": every,
        **{name.removesuffix("_sets"): [f"{raw}/{one}" for one in sets[name]] for name in LISTS},
        "tested": sets["test_sets"],
        "limited": [s for s in every if s not in sets["test_sets"]],
        "made_with": [f"{k}={v}" for k, v in {**made_with, **folders}.items()],
        "wanted": wanted,
        "unnamed": [corpus for corpus in wanted if sources[corpus] is None],
        **{
            f"{corpus}_{name}": " ".join(parts[corpus][name]) for corpus in wanted for name in LISTS
        },
    }


def processes(options: Options) -> dict[str, str]:
    """How many processes prepare and dump, how many train on a CPU, and how many decode: at least
    one per GPU."""
    ngpu = int(options["ngpu"])
    nj = options["nj"] or str(cores())
    jobs = max(int(options["inference_nj"] or 0), ngpu) or min(cores(), MOST_PROCESSES)
    train_nj = options["train_nj"] or str(1 if ngpu else min(cores(), MOST_PROCESSES))
    return {"nj": nj, "train_nj": train_nj, "inference_nj": str(jobs)}


# --- what the scripts say -------------------------------------------------------------------------


def known_options(recipe: Path, root: Path) -> tuple[dict[str, str], list[str]]:
    """All options with their defaults, and the names of the options that only this recipe has."""
    shared = defaults_in(root / "utils/options.sh")
    own = defaults_in(recipe / "run.sh")
    return {**shared, **own}, [name for name in own if name not in shared]


def defaults_in(script: Path) -> dict[str, str]:
    """Option → its default, which may be NAME=${VARIABLE:-DEFAULT}."""
    found = OPTION.findall(script.read_text(encoding="utf-8"))
    return {name: FROM_ENVIRONMENT.sub(r"\1", value) for name, value in found}


# --- the configuration ----------------------------------------------------------------------------


def configuration(options: Options, conf: Path) -> dict[str, Any]:
    """The scale with the chosen LLM, by default its own."""
    files: dict[str, Path | None] = {}
    for option, folder in (("scale", "scale"), ("system", "systems"), ("llm", "llm")):
        if option == "llm" and not options["llm"]:
            continue
        names = sorted(file.stem for file in (conf / folder).glob("*.yaml"))
        check_choice(option, options[option], names)
        files[option] = conf / folder / f"{options[option]}.yaml"
    return read_layers(files["scale"], files["system"], files.get("llm"))[0]


def missing_models(conf: Mapping[str, Any], metrics: str) -> list[str]:
    """Models of the encoders, the LLM and the metrics that tools/fetch_models.py must fetch."""
    paths = [encoder.get("path", "") for encoder in conf["encoders"].values()]
    paths.append((conf.get("llm_conf") or {}).get("path", ""))
    if {"sbert", "fense"} & set(metrics.replace(",", " ").split()):
        paths.append(SBERT)
    names = {path.removeprefix("cache:") for path in paths if path.startswith("cache:")}
    folder = cache_dir() / "models"
    return sorted(name for name in names if not (folder / name / "config.json").is_file())


# --- sets and corpora -----------------------------------------------------------------------------


def sets_of(options: Options, recipe: Path) -> dict[str, list[str]]:
    """The lists of sets. A recipe that joins corpora takes them from its corpora by default."""
    corpora = options["corpora"].split()
    for corpus in corpora:
        if not (recipe.parent / corpus / "run.sh").is_file():
            known = [file.parent.name for file in sorted(recipe.parent.glob("*/run.sh"))]
            hint = guess(corpus, known)
            raise PamError(f"--corpora: there is no recipe egs/{corpus}/run.sh{hint}")
    if corpora and options[MORE]:
        what = "this recipe joins sets of its corpora: write it into the run.sh of a corpus"
        raise PamError(f"--{MORE} {options[MORE]}: {what}")
    sets = {name: options[name].split() for name in LISTS}
    for name in LISTS:
        for corpus in corpora if not sets[name] else ():
            sets[name] = sets[name] + lists_of(recipe.parent / corpus)[name]
        if twice := [one for one in dict.fromkeys(sets[name]) if sets[name].count(one) > 1]:
            what = "two corpora have sets of the same name, or it is named twice"
            raise PamError(f"--{name} {' '.join(twice)}: {what}: leave one out")
    return sets


@functools.cache
def lists_of(corpus: Path) -> dict[str, list[str]]:
    """A corpus' own lists of sets, from its run.sh."""
    names = (*LISTS, MORE)
    command = [corpus / "run.sh", "--print", " ".join(names)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PamError(f"egs/{corpus.name}/run.sh: {done.stderr.strip()}")
    return dict(zip(names, map(str.split, done.stdout.splitlines()), strict=True))


def parts_of(
    sets: Mapping[str, Sequence[str]], options: Options, recipe: Path
) -> dict[str, dict[str, list[str]]]:
    """The part of the requested lists that is of each corpus. A set that is dumped already needs no
    corpus; PamError for another one that no corpus has, and for one that two have."""
    corpora = options["corpora"].split()
    parts = {corpus: {name: [] for name in LISTS} for corpus in corpora}
    dumped = Path(options["dumpdir"]) / "raw"
    for name, one in ((listed, one) for listed in LISTS for one in sets[listed]):
        owner = owner_of(one, [recipe.parent / corpus for corpus in corpora], options["datadir"])
        if owner:
            parts[owner][name].append(one)
        elif not (dumped / one / "wav.scp").is_file():
            own = [lists_of(recipe.parent / corpus) for corpus in corpora]
            known = [each for lists in own for listed in lists.values() for each in listed]
            raise PamError(
                f"--{name} {one}: no recipe of --corpora {' '.join(corpora)} lists this set in its "
                f"run.sh ({', '.join((*LISTS, MORE))}) or has it in its data{guess(one, known)}"
            )
    return parts


def owner_of(name: str, corpora: Sequence[Path], datadir: str) -> str | None:
    """The corpus that lists the set; else the first that can prepare it, or has it."""
    own = [c for c in corpora if any(name in lists_of(c)[kind] for kind in LISTS)]
    if len(set(own)) > 1:
        both = " and ".join(corpus.name for corpus in own)
        raise PamError(f"{name}: {both} have a set of this name: rename it in one of them")
    for corpus in own or corpora:
        if own or name in lists_of(corpus)[MORE] or (corpus / datadir / name / "wav.scp").is_file():
            return corpus.name
    return None


def folders_of(corpus: Path, datadir: str) -> dict[str, str] | None:
    """The source folders of a corpus, from its db.sh.

    If it names none, they are those that the data were made from; None if there are no data, and
    db.sh asks for a folder.
    """
    if named := named_in_db(corpus):
        return named
    record = read_record(corpus / datadir, "data")
    if record is None and FOLDER_OF_DB.search((corpus / "db.sh").read_text(encoding="utf-8")):
        return None
    recorded = (record or {"settings": {}})["settings"]
    return {name: path for name, path in recorded.items() if FOLDER.fullmatch(name)}


def named_in_db(folder: Path) -> dict[str, str]:
    text = (folder / "db.sh").read_text(encoding="utf-8")
    names = FOLDER_OF_DB.findall(text)
    if not names:
        return {}
    script = '. ./db.sh && for name; do printf "%s\\0" "${!name-}"; done'
    done = subprocess.run(
        ["bash", "-euc", script, "bash", *names], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise PamError(f"egs/{folder.name}/db.sh: it fails: see the message above")
    values = dict(zip(names, done.stdout.split("\0"), strict=False))
    # Symbolic links are not resolved, since their targets may change.
    return {name: os.path.normpath(folder / value) for name, value in values.items() if value}


def check_variables(sources: Mapping[Path, Mapping[str, str]]) -> None:
    """PamError if a variable of the environment is the folder of two corpora: it is set for one."""
    for name, value in ((name, os.environ[name]) for name in os.environ if FOLDER.fullmatch(name)):
        read = [corpus.name for corpus, folders in sources.items()
                if value and folders.get(name) == os.path.normpath(corpus / value)]  # fmt: skip
        if len(read) > 1:
            dbs = " and ".join(f"egs/{corpus}/db.sh" for corpus in read)
            raise PamError(
                f"{name}={value} would be the folder of {' and '.join(read)}: rename {name} in one "
                f"of {dbs} (and in its run.sh), or unset it and write the folders there"
            )


def check_folders(sets: Iterable[str], raw: Path, folders: Mapping[str, str]) -> None:
    """PamError if dumped audio comes from other folders than db.sh names now."""
    for name in sets:
        record = read_record(raw / name, "dump") or {"settings": {}}
        recorded = {key: old for key, old in record["settings"].items() if key in folders}
        if lines := differences(recorded, {key: folders[key] for key in recorded}):
            print("\n".join(lines), file=sys.stderr)
            raise PamError(
                f"{raw / name} was made with other settings; name that folder, or prepare "
                "and dump into other folders with --datadir and --dumpdir"
            )


def combined(
    options: Options,
    made_with: Mapping[str, str],
    sets: Mapping[str, Sequence[str]],
    feats: str,
    conf: Mapping[str, Any],
) -> str:
    """The folder of the combined sets. It depends on the lists and the sets' settings."""
    limits = {name: options[name] for name in ("min_seconds", "max_seconds")}
    encoders = flatten(conf["encoders"]) if feats == "dumped" else {}
    learned = {name: sets[name] for name in ("train_sets", "dev_sets")}
    depends = {**made_with, **limits, **learned, "feats": feats, "encoders": encoders}
    return f"{options['dumpdir']}/combined/{digest(json.dumps(depends, sort_keys=True))[:8]}"


if __name__ == "__main__":
    run_main(main)
