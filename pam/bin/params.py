"""Parameter counts of systems, without a download, next to the paper's (section 4.5, Table 6).

    pam params --scale paper                   all systems, encoders and LLMs
    pam params --scale paper --system pam --json

The paper reports trained parameters (`trainable` in the JSON). `total` includes the frozen encoders
and the frozen LLM.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.config import check_parts, load_yaml, read_layers
from pam.errors import PamError, run_main
from pam.paths import conf_file, conf_names
from pam.report.markdown import GAP, table
from pam.train.systems import combine

MILLION = 1e6
PAPER = Path(__file__).resolve().parents[1] / "model" / "paper_sizes.yaml"
COLUMNS = ("adapters", "experts", "expert", "router", "lora", "rest")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="paper", help="a file of conf/scale, or a path")
    parser.add_argument("--system", default="all", help="a file of conf/systems, a path, or all")
    parser.add_argument("--llm", help="a file of conf/llm, or a path; default: the scale's LLM")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. fusion_conf.rank=64"
    )
    parser.add_argument("--json", action="store_true", help="print numbers of parameters as JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    systems = conf_names("systems") if args.system == "all" else [args.system]
    rows = []
    for system in systems:
        try:
            rows.append({"system": Path(system).stem, **system_sizes(args, system)})
        except PamError as error:
            if args.system != "all":
                raise
            print(f"{system} is left out: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    paper = load_yaml(PAPER)
    config = combine(*layers(args, systems[0]))
    check_parts(config, "the configuration")
    llm = config["llm_conf"]["path"]
    comparable = args.scale == "paper" and llm.endswith("Qwen2.5-3B")
    print(f"Systems with {llm}, M parameters; in brackets the paper's printed values\n")
    print(systems_table(rows, paper["systems"] if comparable else {}))
    print("\nEncoders, M parameters (frozen)\n")
    print(encoders_table(paper["encoders"]))
    print("\nLLMs, M parameters, with the LoRA of this scale\n")
    print(llms_table(args, systems[0], paper["lora"]))


def layers(args: argparse.Namespace, system: str) -> tuple[dict, dict, list[str]]:
    """The arguments of `combine`: scale, system and assignments."""
    llm = conf_file("llm", args.llm) if args.llm else None
    files = conf_file("scale", args.scale), conf_file("systems", system)
    return *read_layers(*files, llm), args.set


def system_sizes(args: argparse.Namespace, system: str) -> dict[str, Any]:
    from pam.model.sizes import sizes  # the import takes seconds: options are checked first

    return sizes(combine(*layers(args, system))).as_dict()


def systems_table(rows: list[dict[str, Any]], paper: Mapping[str, Mapping[str, float]]) -> str:
    header = ["system", "encoders", "adapters:", "all experts:", "one expert:", "router:", "LoRA:"]
    header += ["rest:", "trained:", "active at inference:", "total:"]
    lines = []
    for row in rows:
        printed = paper.get(row["system"], {})
        encoders = ", ".join(f"{n} {m(size, 1)}" for n, size in row["encoder_sizes"].items())
        parts = [with_printed(row[column], printed.get(column)) for column in COLUMNS]
        trained, active = (with_printed(row[c], printed.get(c)) for c in ("trainable", "active"))
        lines.append([row["system"], encoders, *parts, trained, active, m(row["total"], 1)])
    return table(header, lines)


def encoders_table(paper: Mapping[str, int]) -> str:
    from pam.model.architecture import architecture, architecture_names, count, on_meta

    names = [name for name in architecture_names() if "inputs" in architecture(name)]
    rows = [[name, m(count(on_meta(name))), str(paper.get(name, GAP))] for name in names]
    return table(["encoder", "ours:", "paper:"], rows)


def llms_table(args: argparse.Namespace, system: str, paper: Mapping[str, int]) -> str:
    from pam.model.architecture import count
    from pam.model.sizes import llm_with_lora

    rows = []
    for name in conf_names("llm"):
        own = argparse.Namespace(**{**vars(args), "llm": name})
        llm, frozen = llm_with_lora(combine(*layers(own, system))["llm_conf"])
        rows.append([name, m(frozen, 1), m(count(llm) - frozen), str(paper.get(name, GAP))])
    return table(["LLM", "frozen:", "LoRA:", "LoRA in the paper:"], rows)


def m(parameters: int, digits: int = 2) -> str:
    return f"{parameters / MILLION:.{digits}f}"


def with_printed(parameters: int, printed: float | None) -> str:
    return m(parameters) if printed is None else f"{m(parameters)} ({printed:g})"


if __name__ == "__main__":
    run_main(main)
