"""The ESPnet task: ESPnet's AbsTask and Trainer, our data, batches, model and optimizer groups."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet2.tasks import abs_task
from espnet2.tasks.abs_task import AbsTask
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.distributed_utils import DistributedOption
from jaxtyping import Float
from torch import Tensor, nn

from pam.config import load_yaml
from pam.data.mapped import MappedText
from pam.data.prompts import banks_of, prompts_of
from pam.data.sample import even_places
from pam.data.scp import read_text_file
from pam.data.utterances import Inputs, read_inputs
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.load import attention_of_cpu
from pam.llm.template import Template
from pam.model.base import TrainableOnlyModel
from pam.model.build import build_model, load_learned
from pam.model.ctc import TokenEmbeddingCTC
from pam.model.speech_llm import ESPnetPaMModel
from pam.model.warmup import CTCWarmupModel, load_warm_fusion
from pam.train.belonging import belonging
from pam.train.collate import Collate
from pam.train.dataset import TrainingSet
from pam.train.iterators import JITTER, EveryUtteranceIterFactory, TaskBalancedIterFactory, limits
from pam.train.measure import measure_states, to_measure
from pam.train.muon import AdamWMuon, matrices
from pam.train.processes import is_first, rank, world
from pam.train.schedule import LinearWarmupDecay
from pam.train.sharding import shard
from pam.train.trainer import PaMTrainer


class Joined(DistributedOption):
    """ESPnet's options of processes that have joined already (`pam.train.processes`)."""

    def init_torch_distributed(self) -> None:
        pass


# ESPnet asks for its own base class, whose methods these models have.
AbsESPnetModel.register(TrainableOnlyModel)
abs_task.scheduler_classes["linear_warmup_decay"] = LinearWarmupDecay
abs_task.DistributedOption = Joined

PHASES = ("ctc", "llm")
PARTS = ("other", "router", "lora", "muon")
CLIPS_TO_MEASURE = 50  # of each task


class PaMTask(AbsTask):
    """Two phases share this task: `ctc` warms the fusion up, `llm` is the paper's training.

    One file, `--pam_config` (exp/NAME/config.yaml), holds all settings of the Speech LLM.
    """

    num_optimizers = 1
    trainer = PaMTrainer
    class_choices_list: list = []

    # Batches need the model's tokenizer and bank. ESPnet builds the model before the iterators.
    llm = None
    banks: Mapping[str, Sequence[str]] | None = None

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("Prompt-aware mixture")
        group.add_argument("--pam_config", help="effective configuration of the Speech LLM")
        group.add_argument("--phase", choices=PHASES, default="llm")
        group.add_argument("--train_dir", help="combined data directory for training")
        group.add_argument("--dev_dir", help="combined data directory for validation")
        group.add_argument("--total_steps", type=int, help="training batches of all epochs")
        group.add_argument("--checkpoint_minutes", type=float, help="between two checkpoints")
        group.add_argument("--warm_fusion", help="warm-up checkpoint that the fusion starts from")
        parser.set_defaults(iterator_type="task", num_att_plot=0)

    # --- model

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> nn.Module:
        config, exp = load_yaml(args.pam_config), Path(args.pam_config).parent
        model = build_model(config, config["feats"] == "online", Template.read(exp))
        if is_first():
            model.llm.template.write(exp)  # decoding reads it
        cls.llm, cls.labelled = model.llm, model.labelled
        cls.banks = banks_of(config, args.seed)
        belongs_to = belonging(model, Path(args.train_dir))
        model = cls.model_of_phase(args, config, model)
        model.belongs_to = belongs_to
        if world() > 1 and cls.llm.shard:
            shard(model, cls.llm, "cuda" if args.ngpu else "cpu")
        return model

    @classmethod
    def model_of_phase(
        cls, args: argparse.Namespace, config: Mapping[str, Any], model: ESPnetPaMModel
    ) -> nn.Module:
        """The model that the phase trains, with the weights that it starts from."""
        init = config.get("init") if args.phase == "llm" else None
        if init:  # initial values of all trainable weights
            load_learned(model, Path(init))
        elif args.warm_fusion:
            load_warm_fusion(model, args.warm_fusion)
        cls.measure_states(args, config, model)
        if args.phase == "ctc":
            return cls.warmup_model(args, config, model)
        with attention_of_cpu(model.llm.llm):  # ESPnet moves the model to a GPU later
            model.keep_prompts(cls.banks)
            reader = model.prompt_reader
            if not init and reader is not None and reader.shift is not None:
                reader.standardize_by(training_prompts(model, config))
        return model

    @classmethod
    def warmup_model(
        cls, args: argparse.Namespace, config: Mapping[str, Any], model: ESPnetPaMModel
    ) -> CTCWarmupModel:
        texts = warmup_texts(Path(args.train_dir), config["warmup_tasks"]).values()
        tokens = {token for text in texts for token in model.llm.answer_ids(text)}
        ctc = TokenEmbeddingCTC(model.llm.embeddings, tokens, model.llm.space)
        return CTCWarmupModel(model, ctc)

    @classmethod
    def measure_states(
        cls, args: argparse.Namespace, config: Mapping[str, Any], model: ESPnetPaMModel
    ) -> None:
        """Standardise states by an even sample of the training clips of every task."""
        if not to_measure(model):
            return
        folder = Path(args.train_dir)
        utts = sample_of_each_task(read_utt2task(folder, config["tasks"]), CLIPS_TO_MEASURE)
        measure_states(model, list(utts), training_inputs(folder, config))

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: nn.Module) -> list:
        """One optimizer. The router, LoRA and the matrices that Muon trains may have their own rate
        and weight decay (`lora_lr`, `router_weight_decay` …; Muon trains none without `muon_lr`),
        and FFN_e of an encoder a factor of its rate (`lr_factors`)."""
        conf = dict(args.optim_conf)
        factors, encoders = conf.pop("lr_factors", None) or {}, encoders_of(model)
        own = {
            part: {
                option: conf.pop(f"{part}_{option}")
                for option in ("lr", "weight_decay")
                if f"{part}_{option}" in conf
            }
            for part in PARTS[1:]
        }
        muons = matrices(speech_llm_of(model).fusion) if own["muon"].get("lr") else set()
        groups: dict[tuple[int, bool, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                part = PARTS.index("muon" if id(parameter) in muons else part_of(name))
                partial = hasattr(parameter, "partial")
                factor = factors.get(encoders.get(id(parameter)), 1.0)
                groups.setdefault((part, partial, factor), []).append(parameter)
        settings = []
        # A checkpoint has the groups in this order, and logs number them: the largest rates first.
        for part, partial, factor in sorted(groups, key=lambda group: (*group[:2], -group[2])):
            group = {"lr": conf["lr"]} | own.get(PARTS[part], {})
            group |= {"lr": group["lr"] * factor, "params": groups[part, partial, factor]}
            group["muon"] = PARTS[part] == "muon"
            settings.append(group | ({"weight_decay": 0.0} if partial else {}))
        conf.setdefault("fused", not conf.get("foreach"))
        return [AdamWMuon(settings, **conf)]  # fused: one operation an update

    # --- data

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        return ("text", "task")

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        return ()

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> None:
        return None  # `TrainingSet` returns tensors already

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool) -> Callable:
        config = load_yaml(args.pam_config)
        seed = args.seed if train else None
        router_prompts = config["router_prompts"] if cls.labelled and args.phase == "llm" else 1
        counts = config["prompts_per_batch"], router_prompts
        return Collate(cls.llm, prompts_of(config), *counts, cls.banks, seed)

    @classmethod
    def build_task_iter_factory(cls, args: argparse.Namespace, iter_options, mode: str):
        config = load_yaml(args.pam_config)
        folder = Path(args.train_dir if mode == "train" else args.dev_dir)
        utt2task = phase_utt2task(folder, config, args.phase)
        common = {
            "dataset": training_set(cls.llm, folder, config, args.phase),
            "lengths": read_lengths(folder),
            "collate_fn": iter_options.collate_fn,
            "num_workers": args.num_workers,
            "pin_memory": args.ngpu > 0,
            **limits(config, config.get("gpus", 1)),
            "rank": rank(),
            "world": world(),
        }
        if mode != "train":
            some = sample_of_each_task(utt2task, config["dev_utts"])
            return EveryUtteranceIterFactory(utt2task=some, **common)
        return TaskBalancedIterFactory(
            utt2task=utt2task,
            steps=args.num_iters_per_epoch,
            total=args.total_steps,
            accum_grad=args.accum_grad,
            seed=args.seed,
            jitter=length_jitter(config),
            **common,
        )


def training_prompts(model: ESPnetPaMModel, config: Mapping[str, Any]) -> Float[Tensor, "N D"]:
    """h_prompt of the training prompts: of the bank, or of all as they are written."""
    if model.bank is not None:
        return model.bank.all_pooled
    tasks = prompts_of(config).values()
    seen = {prompt for own in tasks for prompt in own.train + own.plain_train}
    return model.pooled_prompts(sorted(seen, key=lambda prompt: (len(prompt), prompt)))


def speech_llm_of(model: CTCWarmupModel | ESPnetPaMModel) -> ESPnetPaMModel:
    """The model that a phase trains, which the warm-up has in a model of its own."""
    return model.model if isinstance(model, CTCWarmupModel) else model


def encoders_of(model: CTCWarmupModel | ESPnetPaMModel) -> dict[int, str]:
    """The encoder of each parameter, by its id, that the fusion has for this encoder alone."""
    speech_llm = speech_llm_of(model)
    parts = zip(speech_llm.shapes, speech_llm.fusion.encoder_parts(), strict=False)
    return {id(weight): shape.name for shape, part in parts for weight in part.parameters()}


def part_of(name: str) -> str:
    """The part of `PARTS` that gives a parameter its learning rate, if AdamW trains it."""
    if "lora_" in name:
        return "lora"
    return "router" if name.startswith("router.") else "other"


def read_utt2task(folder: Path, tasks: list[str]) -> dict[str, str]:
    """Task of every utterance. PamError for a task that is not in the configuration."""
    utt2task = read_text_file(folder / "utt2task")
    for utt, task in utt2task.items():
        if task not in tasks:
            raise PamError(
                f"{folder}/utt2task: {utt}: task {task!r} is not configured: {', '.join(tasks)}"
            )
    return utt2task


def phase_utt2task(folder: Path, config: Mapping[str, Any], phase: str) -> dict[str, str]:
    """Task of every utterance that a phase trains on."""
    utt2task = read_utt2task(folder, config["tasks"])
    if phase == "ctc":
        texts = warmup_texts(folder, config["warmup_tasks"])
        return {utt: task for utt, task in utt2task.items() if utt in texts}
    return utt2task


def length_jitter(config: Mapping[str, Any]) -> float:
    return config.get("length_jitter", JITTER)


def read_lengths(folder: Path) -> dict[str, int]:
    """Frames (25 per second) of every utterance, from utt2num_frames."""
    return {utt: int(frames) for utt, frames in read_text_file(folder / "utt2num_frames").items()}


def warmup_texts(folder: Path, tasks: list[str]) -> dict[str, str]:
    """CTC targets of the utterances of `tasks`: from text_warmup if it has the id, else text."""
    utt2task = read_text_file(folder / "utt2task")
    texts = read_text_file(folder / "text")
    special = folder / "text_warmup"
    if special.is_file():
        texts |= read_text_file(special)
    return {utt: text for utt, text in texts.items() if utt2task[utt] in tasks}


def sample_of_each_task(utt2task: Mapping[str, str], count: int) -> dict[str, str]:
    """An even sample of `count` utterances of each task, in the order of ids (0: all of them)."""
    by_task: dict[str, list[str]] = {}
    for utt in sorted(utt2task):
        by_task.setdefault(utt2task[utt], []).append(utt)
    return {
        utts[place]: task
        for task, utts in by_task.items()
        for place in even_places(count or len(utts), len(utts))
    }


def training_inputs(folder: Path, config: Mapping[str, Any]) -> Inputs:
    """The inputs of all utterances of a combined directory; `PamError` if some are missing."""
    utts = MappedText(folder / "text")
    return read_inputs(folder, config["encoders"], config["feats"], utts)


def training_set(
    llm: CausalLM, folder: Path, config: Mapping[str, Any], phase: str = "llm"
) -> TrainingSet:
    """The data of a phase from a combined directory."""
    if phase == "ctc":
        texts = warmup_texts(folder, config["warmup_tasks"])
    else:
        texts = MappedText(folder / "text")
    utt2task, inputs = read_utt2task(folder, config["tasks"]), training_inputs(folder, config)
    return TrainingSet(llm, config["tasks"], texts, utt2task, inputs, end=phase == "llm")


def run_task(options: Mapping[str, Any]) -> None:
    """Run the task. `options` are ESPnet's; an option that can repeat takes a list of triples."""
    args = PaMTask.get_parser().parse_args([])
    unknown = set(options) - set(vars(args))
    assert not unknown, f"not options of ESPnet's task: {unknown}"
    for key, value in options.items():
        setattr(args, key, value)
    PaMTask.main(args=args)
