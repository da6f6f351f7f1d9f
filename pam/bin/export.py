"""Export a trained model, for programs that do not have PaM.

    pam export --exp exp/NAME --to hf DIR --bundle
    pam export --exp exp/NAME --to hf DIR --push USER/NAME
    pam export --exp exp/NAME --to vllm DIR
    pam export --exp exp/NAME --to lora DIR
    pam export --exp exp/NAME --to espnet FILE.zip

hf      a folder for transformers: weights (safetensors), processor, code, model card. It loads with
        AutoModelForMultimodalLM and AutoProcessor (trust_remote_code=True) and decodes greedily.
        LoRA is merged, and the LLM's logits are compared. A LoRA that leaves the prompt alone
        (llm_conf.lora_on_prompt: false) stays beside the LLM and is off while the prompt is read.
vllm    the merged LLM as a plain folder, and pam_inputs.py, which makes vLLM's embeddings (routed,
        with the fused audio). A LoRA that leaves the prompt alone is refused.
lora    LoRA as PEFT reads it, and the other learned weights beside it.
espnet  one file as of espnet2.bin.pack: weights, configuration, template.

Pretrained weights are named with their revisions, unless --bundle includes them. Weights that come
from a folder of this machine need --bundle.
"""

import argparse
from pathlib import Path

from pam.config.made import read_record
from pam.errors import PamError, run_main
from pam.log import get_logger

TARGETS = ("hf", "vllm", "lora", "espnet")
TEMPLATE = "template.json"
logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME")
    parser.add_argument("--to", choices=TARGETS, required=True, help="the form: see above")
    parser.add_argument("out", type=Path, metavar="DIR", help="a new folder; of espnet, a new file")
    parser.add_argument(
        "--bundle", action="store_true", help="include the pretrained weights (hf, vllm)"
    )
    parser.add_argument(
        "--licence", default="other", help="the model card's licence (hf), e.g. cc-by-4.0"
    )
    parser.add_argument(
        "--data_licence",
        action="append",
        default=[],
        metavar="SET=LICENCE",
        help="the licence of a training set, for the card (hf), where its recipe did not state it "
        "(licence= in its run.sh); may be repeated",
    )
    parser.add_argument(
        "--push",
        metavar="USER/NAME",
        help="then upload the folder; HF_TOKEN is its token. A new repository is public, unless "
        "the organisation's default is another: see --private",
    )
    parser.add_argument(
        "--private", action="store_true", help="with --push: nobody else sees the repository"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    if args.bundle and args.to not in ("hf", "vllm"):
        raise PamError(f"--bundle: --to {args.to} has no pretrained weights: leave it out")
    if args.data_licence and args.to != "hf":
        raise PamError(f"--data_licence: --to {args.to} has no model card: leave it out")
    if args.private and not args.push:
        raise PamError("--private: nothing is uploaded: give --push USER/NAME, or leave it out")
    if args.push:
        if args.to == "espnet":
            raise PamError("--push: --to espnet writes one file: upload it by other means")
        from pam.hf.push import token

        token()  # fail before the export
    from pam.model.build import trained_weights

    trained_weights(args.exp)  # fail before anything is written
    export(args)
    logger.info("%s is complete", args.out)
    if args.push:
        from pam.hf.push import push

        logger.info("uploaded to %s", push(args.out, args.push, args.private))
    return 0


def export(args: argparse.Namespace) -> None:
    """Write the form that --to names; the imports take seconds."""
    if args.to == "hf":
        from pam.hf.folder import write_hf

        write_hf(args.exp, args.out, args.bundle, args.licence, data_licences(args))
    elif args.to == "vllm":
        from pam.hf.vllm import write_vllm

        write_vllm(args.exp, args.out, args.bundle)
    elif args.to == "lora":
        from pam.hf.adapter import write_adapter

        write_adapter(args.exp, args.out)
    else:
        pack(args.exp, args.out)


def data_licences(args: argparse.Namespace) -> dict[str, str]:
    """{set: licence} of --data_licence. `PamError` for a set that the training did not have."""
    sets = ((read_record(args.exp, "train") or {}).get("settings") or {}).get("train_sets")
    found = {}
    for text in args.data_licence:
        name, _, licence = text.partition("=")
        if not (name and licence.strip()):
            raise PamError(f"--data_licence {text}: expected SET=LICENCE, such as my_train=CC0")
        if name not in (sets or []):
            known = f"known: {', '.join(sets)}" if sets else "the training recorded no sets"
            raise PamError(f"--data_licence {text}: no training set has this name; {known}")
        found[name] = licence.strip()
    return found


def pack(exp: Path, out: Path) -> None:
    """One file with config.yaml, model.pth and template.json."""
    from pam.model.build import trained_weights

    if out.exists():
        raise PamError(f"{out}: it exists: remove it, or choose another name")
    if out.suffix not in (".zip", ".tar", ".tgz", ".tbz2", ".txz"):
        raise PamError(f"{out}: name a file like MODEL.zip or MODEL.tgz")
    from espnet2.main_funcs.pack_funcs import pack as espnet_pack

    option = [exp / TEMPLATE] if (exp / TEMPLATE).is_file() else []
    espnet_pack(
        files={"asr_model_file": trained_weights(exp)},
        yaml_files={"asr_train_config": exp / "config.yaml"},
        option=option,
        outpath=out,
    )


if __name__ == "__main__":
    run_main(main)
