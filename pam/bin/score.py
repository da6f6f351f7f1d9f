"""Stage 7: score the decoded sets of an experiment: score.json per set, and router.json.

    pam score --decode_dir exp/NAME/greedy_unseen --metrics cider

If a metric lacks a jar, a model or Java, a line says what to do. All other metrics are measured and
written; then the exit status is 1 (with --go_on 0). Further metrics of an earlier scoring are
measured again.
"""

import argparse
from pathlib import Path
from typing import Any

import pam.score
from pam.atomic import write_json
from pam.config import load_yaml
from pam.config.made import (
    PENDING,
    Making,
    add_pending,
    code_digest,
    file_digest,
    read_record,
)
from pam.config.source import attribute_of, registered
from pam.data.digests import data_digest, prompts_digest
from pam.data.prompts import prompts_of
from pam.data.scp import read_text_file
from pam.device import device_for
from pam.errors import PamError, run_main
from pam.log import get_logger
from pam.score import ALWAYS, SBERT, metric_names

STAGE = "score"
TRAINED = ("text", "utt2task")  # training files that the captions' baseline depends on
logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decode_dir", type=Path, required=True, help="exp/NAME/TAG")
    parser.add_argument("--exp", type=Path, help="default: the parent of --decode_dir")
    parser.add_argument("--sets", nargs="*", help="default: every folder with a hyp.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument(
        "--train_dir",
        type=Path,
        help="training directory for the captions' baseline; default: that of EXP",
    )
    parser.add_argument(
        "--metrics",
        default=ALWAYS,
        help=f"of captions, with commas: {described_metrics()}; {ALWAYS} is always measured",
    )
    parser.add_argument(
        "--sbert",
        default=SBERT,
        help="the model of sbert and fense: cache:NAME, a folder, or a name on the hub",
    )
    parser.add_argument(
        "--go_on", action="store_true", help="exit status 0 even if a metric lacks something"
    )
    parser.add_argument("--router", choices=("yes", "no"), default="yes", help="write router.json")
    parser.add_argument(
        "--ngpu", type=int, default=0, help="0: run the router on the CPU; 1: on a GPU"
    )
    add_pending(parser)
    return parser


def described_metrics() -> str:
    """Each metric of captions with its requirements, without importing it."""
    texts = []
    for name, part in registered("pam.score.CAPTION_METRICS").items():
        needs = attribute_of(part, "needs")
        texts.append(f"{name} (needs {' and '.join(needs)})" if needs else name)
    return ", ".join(texts)


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    if not args.pending:
        device_for(args.ngpu)
    args.exp = args.exp or args.decode_dir.parent
    args.metrics, args.train_dir = (
        metric_names(args.metrics),
        args.train_dir or trained_on(args.exp),
    )
    makings = [making_of(args, folder) for folder in decoded(args.decode_dir, args.sets)]
    pending = []
    for making in makings:
        if making.is_complete():
            logger.info("complete: %s", making.folder / "score.json")
        else:
            pending.append(making)
    routing = router_making(args.exp) if args.router == "yes" else None
    routes = routing is not None and not routing.is_complete()
    if args.pending or not (pending or routes):
        return PENDING if pending or routes else 0
    work(args, pending, routing)
    return 0


def making_of(args: argparse.Namespace, folder: Path) -> Making:
    """The record of a set's score, which is measured again if the set has changed."""
    record = read_record(folder, "decode")
    answers = folder / "hyp.jsonl"
    if not answers.is_file():
        raise PamError(f"{answers}: no such file: run stage 6 first")
    if record and not record["complete"]:
        raise PamError(f"{folder} is not decoded: run stage 6 first")
    return Making(
        folder,
        STAGE,
        {"metrics": args.metrics, "sbert": args.sbert, "seed": args.seed},
        {
            "answers": file_digest(answers),
            "training captions": args.train_dir and data_digest(args.train_dir, TRAINED),
        },
        code_digest(Path(pam.score.__file__).parent),
        products=[next(iter(sorted(folder.glob("score*.json"))), folder / "score.json")],
        after=[record],
    )


def work(args: argparse.Namespace, pending: list[Making], routing: Making | None) -> None:
    from pam.score.captions import missing
    from pam.score.metric import Options
    from pam.score.score_set import score_set

    device = device_for(args.ngpu)
    options = Options(
        seed=args.seed,
        metrics=args.metrics,
        train_captions=train_captions(args.train_dir),
        sbert=args.sbert,
    )
    lacking: dict[str, str] = {}
    for making in pending:
        making.begin()
        results = score_set(making.folder, options)
        for result in results:
            log_result(result)
        lacks = missing(results)
        making.finish(complete=not lacks)  # the same command tries again
        lacking |= lacks
    if routing is not None:
        score_router(args.exp, device, routing)
    report_missing(lacking, args.go_on)


def log_result(result: dict[str, Any]) -> None:
    from pam.score.clusters import doubt

    further = {k: v for k, v in result.get("metrics", {}).items() if "value" in v}
    for metric, entry in {result["metric"]: result, **further}.items():
        low, high = entry["ci95"]
        logger.info(
            "%s: %s %.3f (95%% CI %.3f to %.3f%s), %d utterances",
            *(result["set"], metric, entry["value"], low, high, doubt(result), entry["count"]),
        )


def report_missing(needs: dict[str, str], go_on: bool) -> None:
    """Log each metric that was not measured; then raise `PamError`, unless `go_on`."""
    for name, why in needs.items():
        logger.warning("%s is not measured: %s", name, why)
    if needs and not go_on:
        raise PamError(
            f"not measured: {', '.join(needs)} (see above); all other metrics are written"
        )


def trained_on(exp: Path) -> Path | None:
    """The training directory according to ESPnet's configuration in exp/NAME/train."""
    config = exp / "train" / "config.yaml"
    return Path(load_yaml(config)["train_dir"]) if config.is_file() else None


def train_captions(folder: Path | None) -> list[str]:
    """The training answers of the captioning tasks; empty if the directory does not exist."""
    if folder is None or not (folder / "text").is_file():
        logger.info("no training captions found: the baseline of captions is not measured")
        return []
    from pam.score.score_set import metric_of

    tasks = read_text_file(folder / "utt2task")
    texts = read_text_file(folder / "text")
    return [text for utt, text in texts.items() if metric_of(tasks[utt]).is_of_captions]


def decoded(decode_dir: Path, names: list[str] | None) -> list[Path]:
    """The folders of the sets. `PamError` if there is none, or a named one is missing."""
    if names:
        return [decode_dir / name for name in names]
    folders = sorted(path.parent for path in decode_dir.glob("*/hyp.jsonl"))
    if not folders:
        raise PamError(f"{decode_dir}: no SET/hyp.jsonl here: run the decode stage first")
    return folders


def router_making(exp: Path) -> Making:
    """The record of exp/router.json, which is made once per checkpoint."""
    model = file_digest(exp / "model.pth")
    if model is None:
        raise PamError(f"{exp / 'model.pth'}: no trained model here: run stages 4 and 5 first")
    prompts = prompts_of(load_yaml(exp / "config.yaml"))
    return Making(
        exp, STAGE, {"file": "router.json"}, {"model": model, "prompts": prompts_digest(prompts)}
    )


def score_router(exp: Path, device: str = "cpu", making: Making | None = None) -> None:
    """Write exp/router.json, unless the system routes no prompt to a task.

    `making` is the result of `router_making`, if the caller has it.
    """
    making = making or router_making(exp)
    if making.is_complete():
        logger.info("%s: complete, skipped", exp / "router.json")
        return
    from pam.model.build import load_experiment
    from pam.score.router import router_accuracy

    making.begin()
    model = load_experiment(exp).to(device)
    if model.router is None:
        logger.info("%s: this system has no prompt router", exp)
    elif not model.labelled:
        logger.info("%s: the experts have no tasks, so routing has no accuracy", exp)
    else:
        prompts = prompts_of(load_yaml(exp / "config.yaml"))
        result = router_accuracy(model.prompt_posteriors, prompts, model.tasks)
        for name, entry in result.items():
            logger.info("router, %s prompts: %d of %d", name, entry["correct"], entry["count"])
        write_json(exp / "router.json", result)
    making.finish()


if __name__ == "__main__":
    run_main(main)
