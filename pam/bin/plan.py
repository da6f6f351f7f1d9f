"""Predict memory, disk and FLOPs of a training, without a download.

    pam plan --scale paper --system pam --gpus 8
    pam plan --exp exp/NAME      an experiment's settings and its measured memory
    pam plan --scale paper --fit     the largest batch that fits here, by trial

The formulas and their assumptions are in pam/train/plan.py. They count tensors. Training writes its
peak memory to exp/NAME/peak_memory.json, and --exp prints it next to the plan. On GPUs both
count tensors, and the exit status is 1 if they differ by more than 20 %. On a CPU the measured
memory is that of the whole process, which includes libraries, kernels and the allocator.

--fit needs the weights of the encoders and of the LLM. It trains a few steps on random data, in a
process of its own for each size of batch (pam/train/fit.py).
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from pam.config import check_parts, defaults_of, keys_of, load_yaml, read_layers, require
from pam.config.keys import POSITIVE, check, whole
from pam.config.schema import Experiment
from pam.device import device_for
from pam.errors import PamError, run_main
from pam.paths import conf_file
from pam.rate import FRAMES_PER_SECOND
from pam.report.markdown import number, table
from pam.report.results import read_json
from pam.train.memory import GIB, MEASURED, available
from pam.train.systems import combine

SCALE, SYSTEM = "paper", "pam"
OF_AN_EXPERIMENT = ("scale", "system", "llm", "feats", "set")  # options that --exp replaces
MOST_GPUS = 100_000
TOLERANCE = 0.2
NOT_COUNTED = "The libraries, the kernels and the memory allocator come on top of these tensors."


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", help=f"a file of conf/scale, or a path; default: {SCALE}")
    parser.add_argument("--system", help=f"a file of conf/systems, or a path; default: {SYSTEM}")
    parser.add_argument("--llm", help="a file of conf/llm, or a path; default: the scale's LLM")
    parser.add_argument("--exp", type=Path, help="exp/NAME, instead of a scale and a system")
    parser.add_argument("--gpus", type=int, help="0: CPU; default: 0 at scale mini, else 1")
    parser.add_argument("--feats", choices=["dumped", "online"], help="default: the scale's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. batch.max_utts=8"
    )
    parser.add_argument(
        "--fit", action="store_true", help="measure the largest batch, on the first GPU or the CPU"
    )
    parser.add_argument(
        "--fit_gib", type=float, help="memory for --fit on a CPU; default: what is available"
    )
    parser.add_argument("--json", action="store_true")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    if args.gpus is not None and not 0 <= args.gpus <= MOST_GPUS:
        raise PamError(f"--gpus {args.gpus}: expected 0 (CPU) to {MOST_GPUS}")
    if args.fit_gib is not None and not 0 < args.fit_gib < math.inf:
        raise PamError(f"--fit_gib {args.fit_gib:g}: expected a number above 0")
    if args.fit_gib is not None and not args.fit:
        raise PamError(f"--fit_gib {args.fit_gib:g}: give it with --fit")
    config = configuration(args)
    if args.fit:
        return fit(args, config)
    measured = read_measured(args.exp) if args.exp else None
    gpus = number_of_gpus(args, measured)
    from pam.train.plan import make_plan  # the import takes seconds: options are checked first

    plan = make_plan(config, gpus)
    result = {
        "parameters": plan.sizes.as_dict(),
        "batch": vars(plan.batch),
        "gpus": gpus,
        "memory_bytes": {key: round(value) for key, value in plan.memory.items()},
        "peak_bytes": round(plan.peak),
        "dump_bytes_per_hour": round(plan.dump_bytes_an_hour),
        "flops_per_audio_second": plan.flops,
        "flops_per_step": plan.step_flops,
    }
    ratio = 1.0
    if measured:
        result["measured_bytes"] = measured["gpu_bytes" if gpus else "resident_bytes"]
    if measured and gpus:
        ratio = plan.peak / result["measured_bytes"]
        result["predicted_over_measured"] = round(ratio, 3)
    print(json.dumps(result, indent=2) if args.json else text(result, config))
    return int(abs(ratio - 1) > TOLERANCE)


def fit(args: argparse.Namespace, config: dict[str, Any]) -> int:
    """Print what a step takes with batches of different sizes, and the largest that fits."""
    from pam.train.fit import trials, with_rows

    gpus = number_of_gpus(args, None)
    device = device_for(min(gpus, 1))
    if gpus and args.fit_gib is not None:
        raise PamError(f"--fit_gib {args.fit_gib:g}: a GPU has its own memory: leave it out")
    limit = None if gpus else available() if args.fit_gib is None else round(args.fit_gib * GIB)
    found = trials(config, device, limit)
    fitting = {rows: trial for rows, trial in found.items() if trial}
    if args.json:
        print(json.dumps({rows: trial and vars(trial) for rows, trial in found.items()}, indent=2))
    else:
        rows = [
            [str(n), number(t.peak / GIB), number(t.seconds)] if t else [str(n), "does not fit", ""]
            for n, t in sorted(found.items())
        ]
        print(table(["clips", "peak GiB", "seconds of a step:"], rows))
    if not fitting:
        raise PamError("--fit: not even one clip fits: lower batch.max_frames, or see egs/README")
    if not args.json:
        batch = with_rows(config, max(fitting))["batch"]
        print(
            f"\nThe largest batch that fits: --set batch.max_utts={batch['max_utts']} "
            f"--set batch.max_frames={batch['max_frames']}. Leave a tenth for fragmentation."
        )
    return 0


def configuration(args: argparse.Namespace) -> dict[str, Any]:
    if args.exp:
        if given := [f"--{name}" for name in OF_AN_EXPERIMENT if getattr(args, name)]:
            wrong = ", ".join(given)
            raise PamError(f"--exp: an experiment has its own settings: leave out {wrong}")
        return of_experiment(args.exp / "config.yaml")
    llm = conf_file("llm", args.llm) if args.llm else None
    scale = conf_file("scale", args.scale or SCALE)
    layers = read_layers(scale, conf_file("systems", args.system or SYSTEM), llm)
    config = combine(*layers, args.set)
    config |= {"feats": args.feats} if args.feats else {}
    check_planned(config, "the configuration")
    return config


def of_experiment(file: Path) -> dict[str, Any]:
    """An experiment's settings. PamError for a file that is something else."""
    config, keys = load_yaml(file), keys_of(Experiment)
    check({key: value for key, value in config.items() if key in keys}, keys, str(file))
    check_planned(config, str(file))
    return defaults_of(Experiment) | config


def check_planned(config: dict[str, Any], where: str) -> None:
    check_parts(config, where)
    require(config, ["batch", "feats", "tasks"], where)
    require(config["batch"], ["max_utts", "max_frames"], f"{where}: batch")
    if config["batch"]["max_frames"] < config["batch"]["max_utts"]:
        raise PamError(f"{where}: batch: max_frames is less than max_utts: a clip has a frame")


def read_measured(exp: Path) -> dict[str, Any]:
    file = exp / MEASURED
    if not file.is_file():
        raise PamError(f"{file}: not measured: training writes it")
    measured = read_json(file, dict)
    used = "gpu_bytes" if measured.get("gpus") else "resident_bytes"
    for key, rule in (("gpus", whole(0)), (used, POSITIVE)):
        if not rule.holds(value := measured.get(key)):
            raise PamError(f"{file}: {key}: {value!r}: expected {rule.what}: remove the file")
    return measured


def number_of_gpus(args: argparse.Namespace, measured: dict[str, Any] | None) -> int:
    if measured:
        if args.gpus not in (None, measured["gpus"]):
            raise PamError(
                f"--gpus {args.gpus}: {args.exp} was measured with {measured['gpus']}: leave it out"
            )
        return measured["gpus"]
    if args.gpus is not None:
        return args.gpus
    return 0 if Path(args.scale or SCALE).stem == "mini" else 1


def text(result: dict[str, Any], config: dict[str, Any]) -> str:
    gpus, sizes, batch = result["gpus"], result["parameters"], result["batch"]
    where = f"each of {gpus} GPUs" if gpus else "the process on a CPU"
    rows = [[part, number(value / GIB)] for part, value in result["memory_bytes"].items()]
    rows.append(["**peak**", number(result["peak_bytes"] / GIB)])
    parts = table(["part", "GiB:"], rows) + ("" if gpus else f"\n\n{NOT_COUNTED}")
    flops = result["flops_per_audio_second"]
    seconds = batch["rows"] * batch["frames"] / FRAMES_PER_SECOND
    lines = [
        f"Parameters: {sizes['total'] / 1e6:.1f} M, of which {sizes['trainable'] / 1e6:.2f} M are "
        f"trained and {sizes['active'] / 1e6:.2f} M of those are active at inference.",
        f"Largest batch of a process: {batch['rows']} clips, {seconds:.1f} s of audio in all, "
        f"{batch['answer']} tokens an answer, {batch['prompts']} prompts of {batch['prompt']} "
        "tokens at most.",
        f"\nMemory of {where} while training\n",
        parts,
        f"\nDumped states: {result['dump_bytes_per_hour'] / 1e9:.2f} GB per hour of audio"
        + (" (not with feats: online)." if config["feats"] == "online" else "."),
        "\nFor one second of audio\n",
        table(["what", "GFLOP:"], [[part, number(v / 1e9, 1)] for part, v in flops.items()]),
        f"\nA step with the largest batch: {result['flops_per_step'] / 1e12:.2f} TFLOP on each "
        "process (pam/train/flops.py). MFU is this over seconds and peak FLOP/s.",
    ]
    if "measured_bytes" in result:
        kind = "allocated on the GPU" if gpus else "resident memory of the process"
        lines.append(f"\nMeasured: {result['measured_bytes'] / GIB:.2f} GiB, {kind}.")
    if "predicted_over_measured" in result:
        lines.append(f"Predicted / measured = {result['predicted_over_measured']:.2f}.")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
