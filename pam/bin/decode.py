"""Stage 6: decode data directories with a trained model: OUT/SET/{hyp.jsonl,hyp,ref}."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pam.config import load_yaml
from pam.data.audio import SAMPLE_RATE
from pam.data.longest import is_beyond, read_longest
from pam.data.prompts import POOLS, Prompts, prompts_of
from pam.data.scp import read_table
from pam.decode.decode_set import PLAIN_BATCH_SIZE, Settings, Share, decode_part, has_part, join
from pam.decode.exact import BATCH_SIZE, EXACT
from pam.decode.fingerprint import data_digest, model_stamp, prompts_digest
from pam.decode.greedy import MAX_TOKENS_PER_SECOND
from pam.device import device_for
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
    parser.add_argument(
        "--job", default="1/1", help="I/N: do a part of every set; the last of N jobs joins them"
    )
    parser.add_argument("--prompts", choices=POOLS, default="unseen")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of prompts")
    parser.add_argument(
        "--batch_size",
        type=int,
        help=f"default: {BATCH_SIZE} (with --exact false: {PLAIN_BATCH_SIZE})",
    )
    parser.add_argument(
        "--exact",
        choices=("true", "false"),
        default=str(EXACT).lower(),
        help="whether a batch gives what single utterances give, to the last bit",
    )
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument(
        "--max_tokens_per_second",
        type=float,
        default=MAX_TOKENS_PER_SECOND,
        help="of audio, but 16 in any case: an answer that loops ends; 0: no limit",
    )
    parser.add_argument("--feats", choices=("dumped", "online"), help="default: as it was trained")
    parser.add_argument("--encoder_dir", type=Path, help="default: two levels above --data")
    parser.add_argument(
        "--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU (see CUDA_VISIBLE_DEVICES)"
    )
    return parser


@dataclass(frozen=True)
class Job:
    """This job's part of one set, and what its answers depend on."""

    data: Path
    out: Path
    prompts: Mapping[str, Prompts]
    made_with: Mapping[str, Any]


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    share, device = share_of(args.job), one_device(args.ngpu)
    stamp = model_stamp(args.exp)
    config = load_yaml(args.exp / "config.yaml")
    settings = settings_of(args, config)
    jobs = [make_job(data, args.out, config, settings, stamp) for data in args.data]
    jobs = [job for job in jobs if not is_decoded(job)]
    pending = [job for job in jobs if not has_part(job.out, share, job.made_with)]
    if pending:
        model = load_experiment(args.exp, online=settings.feats == "online").to(device)
    for job in jobs:
        if job in pending:
            if share.number == 1:
                warn_of_long(job.data, args.exp)
            rest = job.prompts, settings, job.made_with, share, args.encoder_dir
            decode_part(model, job.data, job.out, *rest)
        count = join(job.out, share, job.made_with)
        if count is not None:
            logger.info("%s: %d utterances decoded", job.out, count)


def settings_of(args: argparse.Namespace, config: Mapping[str, Any]) -> Settings:
    exact = args.exact == "true"
    if args.batch_size is None:
        args.batch_size = BATCH_SIZE if exact else PLAIN_BATCH_SIZE
    for option in ("batch_size", "max_new_tokens"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)}: must be at least 1")
    if not args.max_tokens_per_second >= 0:
        raise UserError(f"--max_tokens_per_second {args.max_tokens_per_second}: must be 0 or more")
    return Settings(
        prompts=args.prompts,
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
        max_tokens_per_second=args.max_tokens_per_second,
        feats=args.feats or config["feats"],
        batch_size=args.batch_size,
        exact=exact,
        dtype=config["llm_conf"].get("dtype", "bfloat16"),
    )


def one_device(ngpu: int) -> str:
    if ngpu > 1:
        raise UserError(
            f"--ngpu {ngpu}: a job decodes on one GPU: start {ngpu} jobs, --job 1/{ngpu} and so "
            "on, each with its own CUDA_VISIBLE_DEVICES, as stage 6 of a recipe does"
        )
    return device_for(ngpu)


def share_of(job: str) -> Share:
    number, _, jobs = job.partition("/")
    if not (number.isdigit() and jobs.isdigit() and 1 <= int(number) <= int(jobs)):
        raise UserError(f"--job {job!r}: expected I/N, the I-th of N jobs")
    return Share(int(number), int(jobs))


def make_job(
    data: Path, parent: Path, config: Mapping[str, Any], settings: Settings, stamp: list[int]
) -> Job:
    prompts = prompts_of(config, sorted(set(read_table(data / "utt2task").values())))
    made_with = {
        **asdict(settings),
        "model": stamp,
        "data": data_digest(data),
        "prompt_pools": prompts_digest(prompts),
    }
    return Job(data, parent / data.name, prompts, made_with)


def is_decoded(job: Job) -> bool:
    """Was the set decoded with these settings? If with others, its mark of completeness goes."""
    done = job.out / "decode.json"
    if done.is_file() and (job.out / "hyp.jsonl").is_file() and _read(done) == job.made_with:
        logger.info("%s: decoded already with these settings, skipped", job.out)
        return True
    done.unlink(missing_ok=True)
    return False


def warn_of_long(data: Path, exp: Path) -> None:
    """One warning where a set has clips longer than those that were trained on."""
    longest, file = read_longest(exp), data / "utt2num_samples"
    if longest is None or not file.is_file():
        return
    seconds = [int(samples) / SAMPLE_RATE for samples in read_table(file).values()]
    beyond = [length for length in seconds if is_beyond(length, longest)]
    if beyond:
        logger.warning(
            "%s: %d of %d utterances are longer than what the model was trained on: up to %.1f s, "
            "it was trained on clips of up to %.1f s: their answers may miss parts or repeat "
            "themselves",
            *(data, len(beyond), len(seconds), max(beyond), longest),
        )


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


if __name__ == "__main__":
    run_main(main)
