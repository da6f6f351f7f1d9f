"""Decode a data directory with a trained model: hyp.jsonl, hyp and ref."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from pam.atomic import write_json
from pam.config import load_yaml
from pam.data.prompts import POOLS, load_all_prompts
from pam.data.scp import read_table
from pam.decode.decode_set import Settings, decode_set
from pam.decode.fingerprint import data_digest, model_stamp, prompts_digest
from pam.errors import run_main
from pam.log import get_logger
from pam.model.build import load_experiment

logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument("--data", type=Path, required=True, help="dump/raw/SET or a combined one")
    parser.add_argument("--out", type=Path, required=True, help="exp/NAME/TAG/SET")
    parser.add_argument("--prompts", choices=POOLS, default="unseen")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of prompts")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--feats", choices=("dumped", "online"), help="default: as it was trained")
    parser.add_argument("--encoder_dir", type=Path, help="default: two levels above --data")
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    stamp = model_stamp(args.exp)
    feats = args.feats or load_yaml(args.exp / "config.yaml")["feats"]
    settings = Settings(args.prompts, args.seed, args.max_new_tokens, feats)
    tasks = sorted(set(read_table(args.data / "utt2task").values()))
    prompts = load_all_prompts(tasks)
    wanted = {
        **asdict(settings),
        "model": stamp,
        "data": data_digest(args.data),
        "prompt_pools": prompts_digest(prompts),
    }
    done = args.out / "decode.json"
    if done.is_file() and (args.out / "hyp.jsonl").is_file() and _read(done) == wanted:
        logger.info("%s: decoded already with these settings, skipped", args.out)
        return
    done.unlink(missing_ok=True)
    model = load_experiment(args.exp, online=feats == "online")
    if args.ngpu:
        model = model.to("cuda")
    lines = decode_set(
        model, args.data, args.out, prompts, settings, args.batch_size, args.encoder_dir
    )
    write_json(done, wanted)
    logger.info("%s: %d utterances decoded", args.out, len(lines))


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


if __name__ == "__main__":
    run_main(main)
