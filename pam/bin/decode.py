"""Stage 6: decode data directories with a trained model: OUT/SET/{hyp.jsonl,hyp,ref}."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pam.atomic import write_json
from pam.config import load_yaml
from pam.data.prompts import POOLS, Prompts, prompts_of
from pam.data.scp import read_table
from pam.decode.decode_set import Settings, decode_set
from pam.decode.fingerprint import data_digest, model_stamp, prompts_digest
from pam.errors import UserError, run_main
from pam.log import get_logger
from pam.model.build import load_experiment

logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument(
        "--data", type=Path, required=True, nargs="+", help="dump/raw/SET … or combined ones"
    )
    parser.add_argument("--out", type=Path, required=True, help="exp/NAME/TAG; SET is added")
    parser.add_argument("--job", default="1/1", help="I/N: do every N-th set only")
    parser.add_argument("--prompts", choices=POOLS, default="unseen")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of prompts")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument(
        "--maxlenratio", type=float, default=0.5, help="tokens per audio frame at most; 0: no limit"
    )
    parser.add_argument("--feats", choices=("dumped", "online"), help="default: as it was trained")
    parser.add_argument("--encoder_dir", type=Path, help="default: two levels above --data")
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    stamp = model_stamp(args.exp)
    config = load_yaml(args.exp / "config.yaml")
    feats = args.feats or config["feats"]
    settings = Settings(args.prompts, args.seed, args.max_new_tokens, args.maxlenratio, feats)
    jobs = (make_job(data, args.out, config, settings, stamp) for data in share(args))
    pending = [job for job in jobs if job]
    if not pending:
        return
    model = load_experiment(args.exp, online=feats == "online")
    if args.ngpu:
        model = model.to("cuda")
    for data, out, prompts, wanted in pending:
        lines = decode_set(model, data, out, prompts, settings, args.batch_size, args.encoder_dir)
        write_json(out / "decode.json", wanted)
        logger.info("%s: %d utterances decoded", out, len(lines))


def share(args: argparse.Namespace) -> list[Path]:
    """The sets of this job."""
    number, _, jobs = args.job.partition("/")
    if not (number.isdigit() and jobs.isdigit() and 1 <= int(number) <= int(jobs)):
        raise UserError(f"--job {args.job!r}: expected I/N, the I-th of N jobs")
    return args.data[int(number) - 1 :: int(jobs)]


def make_job(
    data: Path, parent: Path, config: Mapping[str, Any], settings: Settings, stamp: str
) -> tuple[Path, Path, dict[str, Prompts], dict] | None:
    """What decoding `data` needs; None where it was decoded already with these settings."""
    out = parent / data.name
    prompts = prompts_of(config, sorted(set(read_table(data / "utt2task").values())))
    wanted = {
        **asdict(settings),
        "model": stamp,
        "data": data_digest(data),
        "prompt_pools": prompts_digest(prompts),
    }
    done = out / "decode.json"
    if done.is_file() and (out / "hyp.jsonl").is_file() and _read(done) == wanted:
        logger.info("%s: decoded already with these settings, skipped", out)
        return None
    done.unlink(missing_ok=True)
    return data, out, prompts, wanted


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


if __name__ == "__main__":
    run_main(main)
