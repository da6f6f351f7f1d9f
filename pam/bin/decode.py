"""Stage 6: decode data directories with a trained model: OUT/SET/{hyp.jsonl,hyp,ref}.

pam decode --exp exp/NAME --data dump/raw/asr_clean_test --out exp/NAME/greedy_unseen
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pam.config import load_yaml
from pam.config.made import (
    PENDING,
    Making,
    add_pending,
    digest,
    file_digest,
    read_record,
)
from pam.data.digests import data_digest, prompts_digest
from pam.data.prompts import PROMPT_SPLITS, Prompts, prompts_of
from pam.data.scp import read_text_file
from pam.decode.drafters import DRAFTERS
from pam.decode.settings import (
    BATCH_SIZE,
    EXACT,
    MAX_NEW_TOKENS,
    MAX_TOKENS_PER_SECOND,
    NONE,
    PLAIN_BATCH_SIZE,
    Settings,
    add_skip_silence,
    answer_limits,
    check_threshold,
)
from pam.device import device_for
from pam.errors import PamError, run_main
from pam.lock import alone_at
from pam.log import get_logger

STAGE = "decode"
MOST_BEAMS = 16
REMEDY = "choose another name with --inference_tag, or remove the folder"
logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument(
        "--data", type=Path, required=True, nargs="+", help="dump/raw/SET … or combined directories"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="exp/NAME/TAG; results go to OUT/SET"
    )
    parser.add_argument(
        "--job", default="1/1", help="I/N: decode part I of N of every set; the last job joins them"
    )
    parser.add_argument("--prompts", choices=PROMPT_SPLITS, default="unseen")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of prompts")
    parser.add_argument(
        "--batch_size",
        type=int,
        help=f"default: {BATCH_SIZE} (with --exact false: {PLAIN_BATCH_SIZE})",
    )
    parser.add_argument(
        "--exact",
        choices=("true", "false"),
        default=str(EXACT).lower(),
        help="whether batches give exactly the answers of single utterances",
    )
    parser.add_argument(
        "--drafter",
        choices=[NONE, *DRAFTERS.names()],
        default=NONE,
        help="proposes tokens that the LLM checks in fewer passes; changes no answer",
    )
    parser.add_argument(
        "--no_repeat_ngram_size",
        type=int,
        metavar="N",
        help="no answer has a sequence of N tokens twice, as in transformers; 0: all may repeat "
        "(default: that of the experiment's scale)",
    )
    parser.add_argument("--beam", type=int, default=1, help="beams of beam search; 1: greedy")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="sample at this temperature; 0: do not",
    )
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="with --temperature: sample from this nucleus"
    )
    parser.add_argument(
        "--early_exit",
        default=NONE,
        metavar="CRITERION",
        help="predict each token from the first layer that is sure of it: softmax, margin, "
        "entropy, cosine, patience, gate or static. Answers change. verify: --drafter exit_layer, "
        "which changes no answer",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.9,
        help="score of the criterion that is enough, in [0, 1]; of patience, a number of layers",
    )
    parser.add_argument(
        "--exit_layer",
        type=int,
        help="first layer to exit from (default: 1); of --drafter exit_layer, the layer that "
        "drafts (default: half of the layers)",
    )
    parser.add_argument(
        "--exit_stride", type=int, default=1, help="check every n-th layer from --exit_layer on"
    )
    parser.add_argument(
        "--exit_decay",
        type=float,
        default=0.0,
        help="how fast the threshold falls along the answer (CALM's temperature); 0: not at all",
    )
    parser.add_argument(
        "--exit_cache",
        default="recompute",
        help="keys and values of skipped layers: recompute, copy or propagate",
    )
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        help=f"default: that of the experiment's scale, or {MAX_NEW_TOKENS}",
    )
    parser.add_argument(
        "--max_tokens_per_second",
        type=float,
        help="largest number of tokens per second of audio (but at least 16); it ends answers that "
        "repeat themselves; 0: no limit (default: that of the experiment's scale, or "
        f"{MAX_TOKENS_PER_SECOND:g})",
    )
    add_skip_silence(parser)
    parser.add_argument("--feats", choices=("dumped", "online"), help="default: as in training")
    parser.add_argument("--encoder_dir", type=Path, help="default: two levels above --data")
    parser.add_argument(
        "--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU (see CUDA_VISIBLE_DEVICES)"
    )
    add_pending(parser)
    return parser


@dataclass(frozen=True)
class Job:
    """A set to decode, with all that its answers depend on."""

    data: Path
    prompts: Mapping[str, Prompts]
    making: Making

    @property
    def key(self) -> str:
        return digest(repr(sorted(self.making.settings.items())), repr(self.making.inputs))


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    one_device(args.ngpu)
    if not args.pending:
        device_for(args.ngpu)
        share_of(args.job)
    model = file_digest(args.exp / "model.pth")
    if model is None:
        what = args.exp / "model.pth"
        raise PamError(f"{what}: no trained model here: run stages 4 and 5 of the recipe first")
    config = load_yaml(args.exp / "config.yaml")
    settings = settings_of(args, config)
    jobs = []
    for data in args.data:
        job = make_job(args, data, config, settings, model)
        if job.making.is_complete():
            logger.info("complete: %s", job.making.folder)
        elif not (data / "wav.scp").is_file():
            raise PamError(f"{data} is not complete: run stage 2 first")
        else:
            jobs.append(job)
    if args.pending or not jobs:
        return PENDING if jobs else 0
    work(args, settings, jobs)
    return 0


def work(args: argparse.Namespace, settings: Settings, jobs: list[Job]) -> None:
    """Decode this job's part of each set, and join the sets whose parts are complete."""
    from pam.decode.decode_set import Share, decode_part, has_part, join
    from pam.decode.decoder import Decoder
    from pam.model.build import load_experiment

    share, decoder = Share(*share_of(args.job)), None
    for job in jobs:
        out = job.making.folder
        with alone_at(share.file(out), "decoding"):
            job.making.begin()
            if not has_part(out, share, job.key):
                if decoder is None:
                    model = load_experiment(args.exp, online=settings.feats == "online")
                    decoder = Decoder(model.to(device_for(args.ngpu)), settings)
                if share.number == 1:
                    warn_of_long(job.data, args.exp)
                decode_part(decoder, job.data, out, job.prompts, job.key, share, args.encoder_dir)
        count = join(out, share, job.key, partial(job.making.finish, True))
        if count is not None:
            logger.info("%s: %d utterances decoded", out, count)


def settings_of(args: argparse.Namespace, config: Mapping[str, Any]) -> Settings:
    exact = args.exact == "true"
    if args.batch_size is None:
        args.batch_size = BATCH_SIZE if exact else PLAIN_BATCH_SIZE
    for option, limit in answer_limits(config).items():
        if getattr(args, option) is None:
            setattr(args, option, limit)
    for option in ("batch_size", "max_new_tokens"):
        if getattr(args, option) < 1:
            raise PamError(f"--{option} {getattr(args, option)}: must be at least 1")
    check_early_exit(args)
    check_search(args, exact)
    if not args.max_tokens_per_second >= 0:
        raise PamError(f"--max_tokens_per_second {args.max_tokens_per_second}: must be 0 or more")
    if args.no_repeat_ngram_size < 0:
        raise PamError(f"--no_repeat_ngram_size {args.no_repeat_ngram_size}: must be 0 or more")
    if args.skip_silence is not None:
        check_threshold(args.skip_silence, "--skip_silence")
    return Settings(
        prompts=args.prompts,
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
        max_tokens_per_second=args.max_tokens_per_second,
        feats=args.feats or config["feats"],
        batch_size=args.batch_size,
        exact=exact,
        drafter=args.drafter,
        exit_layer=args.exit_layer,
        early_exit=args.early_exit,
        threshold=args.threshold,
        exit_stride=args.exit_stride,
        exit_decay=args.exit_decay,
        exit_cache=args.exit_cache,
        no_repeat_ngram_size=args.no_repeat_ngram_size,
        beam=args.beam,
        temperature=args.temperature,
        top_p=args.top_p,
        dtype=config["llm_conf"].get("dtype", "bfloat16"),
        skip_silence=args.skip_silence,
    )


def check_early_exit(args: argparse.Namespace) -> None:
    """The options of early exit fit each other; `verify` becomes the drafter of that name."""
    if args.early_exit == "verify":
        args.early_exit, args.drafter = NONE, "exit_layer"
    if args.early_exit == NONE:
        for option in ("threshold", "exit_stride", "exit_decay", "exit_cache"):
            if getattr(args, option) != getattr(Settings, option):
                raise PamError(f"--{option} {getattr(args, option)}: needs --early_exit")
        if args.exit_layer is not None and args.drafter != "exit_layer":
            raise PamError(
                f"--exit_layer {args.exit_layer}: needs --early_exit or --drafter exit_layer"
            )


def check_search(args: argparse.Namespace, exact: bool) -> None:
    """At most one of the searches that are not plain, each with values that it can use."""
    if not 1 <= args.beam <= MOST_BEAMS:
        raise PamError(f"--beam {args.beam}: must be 1 to {MOST_BEAMS}")
    if not (args.temperature >= 0 and math.isfinite(args.temperature)):
        raise PamError(f"--temperature {args.temperature}: must be 0 or more")
    if not 0 < args.top_p <= 1:
        raise PamError(f"--top_p {args.top_p}: must be above 0, at most 1")
    if args.top_p < 1 and args.temperature == 0:
        raise PamError(f"--top_p {args.top_p}: needs --temperature")
    chosen = {
        f"--drafter {args.drafter}": args.drafter != NONE,
        f"--early_exit {args.early_exit}": args.early_exit != NONE,
        f"--beam {args.beam}": args.beam > 1,
        f"--temperature {args.temperature:g}": args.temperature > 0,
    }
    used = [option for option, is_used in chosen.items() if is_used]
    if len(used) > 1:
        raise PamError(f"{used[0]}: cannot be used with {used[1]}")
    if used and not exact:
        raise PamError(f"{used[0]}: needs --exact true")


def one_device(ngpu: int) -> None:
    if ngpu > 1:
        raise PamError(
            f"--ngpu {ngpu}: a job decodes on one GPU: start {ngpu} jobs, --job 1/{ngpu} and so "
            "on, each with its own CUDA_VISIBLE_DEVICES, like stage 6 of a recipe"
        )


def share_of(job: str) -> tuple[int, int]:
    """I and N of `I/N`."""
    number, _, jobs = job.partition("/")
    if not (number.isdigit() and jobs.isdigit() and 1 <= int(number) <= int(jobs)):
        raise PamError(f"--job {job!r}: expected I/N, the I-th of N jobs")
    return int(number), int(jobs)


def make_job(
    args: argparse.Namespace,
    data: Path,
    config: Mapping[str, Any],
    settings: Settings,
    model: str,
) -> Job:
    out, prompts = args.out / data.name, {}
    if (data / "utt2task").is_file():
        prompts = prompts_of(config, sorted(set(read_text_file(data / "utt2task").values())))
    made_with = asdict(settings)
    if settings.skip_silence is None:  # decodings of earlier versions stay as they are
        del made_with["skip_silence"]
    making = Making(
        out,
        STAGE,
        made_with,
        {
            "model": model,
            "data": data_digest(data),
            "prompts": prompts_digest(prompts) if prompts else None,
        },
        products=[out / "hyp.jsonl"],
        begun=any(out.glob(".parts/*.json")) or (out / "hyp.jsonl").exists(),
        remedy=REMEDY,
        after=[
            read_record(args.exp, "train"),
            read_record(args.exp, "average"),
            read_record(data, "dump"),
        ],
    )
    return Job(data, prompts, making)


def warn_of_long(data: Path, exp: Path) -> None:
    """Log one warning if a set has clips longer than all training clips."""
    from pam.data.longest import is_beyond, read_longest
    from pam.rate import SAMPLE_RATE

    longest, file = read_longest(exp), data / "utt2num_samples"
    if longest is None or not file.is_file():
        return
    seconds = [int(samples) / SAMPLE_RATE for samples in read_text_file(file).values()]
    beyond = [length for length in seconds if is_beyond(length, longest)]
    if beyond:
        logger.warning(
            "%s: %d of %d utterances, up to %.1f s, are longer than all training clips, up to "
            "%.1f s: their answers may miss parts or repeat themselves",
            *(data, len(beyond), len(seconds), max(beyond), longest),
        )


if __name__ == "__main__":
    run_main(main)
