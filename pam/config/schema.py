"""Every key of conf/scale, conf/llm, conf/systems and --set: meaning, unit, default, valid values.

`python -m pam.bin.config --explain` prints them. "not set" means that there is no default: a
program that needs the key reports that it is missing.
"""

from dataclasses import dataclass, replace
from typing import Any

from pam.config.keys import (
    ANY,
    ANYTHING,
    BETAS,
    DISTINCT,
    FLAG,
    NAMES,
    NUMBER,
    PATTERNS,
    POSITIVE,
    SHARE,
    TEXT,
    Key,
    Keys,
    one_of,
    option,
    or_null,
    whole,
)
from pam.config.source import options_of, registered

# The parts. Their source is read as text; nothing is imported.
ENCODERS, FUSIONS = "pam.encoders.ENCODERS", "pam.fusion.FUSIONS"
LLM = "pam.llm.causal_lm.CausalLM"
ROUTER = "pam.fusion.router.Router"
MODEL = "pam.model.speech_llm.ESPnetPaMModel"


def encoder_names() -> list[str]:
    return list(registered(ENCODERS))


def fusion_names() -> list[str]:
    return list(registered(FUSIONS))


def options_of_all(registry: str) -> dict[str, Key]:
    """The options of all parts of a registry. An option's help names the parts that have it."""
    parts = {name: options_of(part) for name, part in registered(registry).items()}
    out: dict[str, Key] = {}
    for options in parts.values():
        for name, key in options.items():
            of = ", ".join(part for part, own in parts.items() if name in own)
            out.setdefault(name, replace(key, help=f"{key.help} Of: {of}."))
    return out


def encoder_options() -> Keys:
    return options_of_all(ENCODERS)


def fusion_options() -> Keys:
    extended = Key(
        "Number of last encoders that were added to a trained fusion: their layer weights start "
        "at zero (written by `pam.bin.extend`).",
        whole(0),
        default="0",
    )
    return options_of_all(FUSIONS) | {"extended": extended}


def options_of_each_fusion() -> Keys:
    return {
        name: Key(f"Options of {name}.", keys=lambda part=part: options_of(part))
        for name, part in registered(FUSIONS).items()
    }


def llm_options() -> Keys:
    path = Key("A folder, a name on the hub, or cache:NAME of tools/fetch_models.py.", TEXT)
    return {"path": replace(path, default="not set")} | options_of(LLM)


def router_options() -> Keys:
    return options_of(ROUTER)


def model_options() -> Keys:
    return {name: key for name, key in options_of(MODEL).items() if name != "encoders"}


@dataclass(frozen=True)
class Encoder:
    """A frozen audio encoder."""

    family: str | None = option(
        "The class of the encoder (pam/encoders).", TEXT, kind="encoder", choices=encoder_names
    )
    path: str | None = option(
        "Its weights: a folder, a file, a name on the hub, or cache:NAME of tools/fetch_models.py.",
        TEXT,
    )
    conf: dict[str, Any] | None = option("Options of its family.", keys=encoder_options)
    dim: int | None = option("D_e, the width of its hidden states.", whole(1))
    num_states: int | None = option(
        "L_e + 1, the number of its hidden states: its layers and its front end.", whole(1)
    )


@dataclass(frozen=True)
class Batch:
    """The size of a batch. All utterances of a batch have one task."""

    max_utts: int | None = option("Largest batch, in utterances.", whole(1), unit="utterances")
    max_frames: int | None = option(
        "Largest batch, in frames, padding included.", whole(1), unit="frames of 40 ms"
    )
    per: str | None = option(
        "What has a batch of these limits: the job, whose GPUs split it, or each gpu. With gpu, "
        "`steps` of N GPUs read N times the data, and their number is a setting of the experiment.",
        one_of("job", "gpu"),
        without="job",
    )


@dataclass(frozen=True)
class Optim:
    """Options of PyTorch's AdamW and of Muon; LoRA, the router and encoders may have own rates."""

    lr: float | None = option("Peak learning rate.", NUMBER, without="AdamW's: 0.001")
    lora_lr: float | None = option("Peak rate of LoRA's weights.", NUMBER, without="lr")
    router_lr: float | None = option("Peak rate of the router.", NUMBER, without="lr")
    muon_lr: float | None = option(
        "Peak rate of Muon, which then trains the linear layers, convolutions and attention of the "
        "fusion in place of AdamW (pam/train/muon.py). Of the options below only lr_factors and "
        "weight_decay act on it. 0: AdamW trains them.",
        NUMBER,
        without="0",
    )
    lr_factors: dict[str, float] | None = option(
        "Encoder → factor of the rate of what the fusion has of this encoder alone, its FFN_e. "
        "AdamW moves the features of a wide or slow encoder more in one update. No effect on "
        "fusions without such a part: salmonn and concat_norm_layers.",
        keys=lambda: {ANY: Key("A factor of the rate.", POSITIVE)},
        without="1 for every encoder",
    )
    weight_decay: float | None = option("Weight decay.", NUMBER, without="AdamW's: 0.01")
    lora_weight_decay: float | None = option(
        "Weight decay of LoRA's weights.", NUMBER, without="weight_decay"
    )
    router_weight_decay: float | None = option(
        "Weight decay of the router.", NUMBER, without="weight_decay"
    )
    betas: list[float] | None = option(
        "Decay of the running means of the gradient and of its square.",
        BETAS,
        without="AdamW's: [0.9, 0.999]",
    )
    eps: float | None = option(
        "Added to the denominator of an update.", NUMBER, without="AdamW's: 1e-8"
    )
    amsgrad: bool | None = option("The AMSGrad variant.", FLAG, without="AdamW's: false")
    maximize: bool | None = option("Maximise the loss.", FLAG, without="AdamW's: false")
    capturable: bool | None = option(
        "Safe to capture in a CUDA graph.", FLAG, without="AdamW's: false"
    )
    foreach: bool | None = option(
        "Update all tensors in one call.", or_null(FLAG), without="AdamW chooses"
    )
    fused: bool | None = option(
        "Use the fused kernel; not with foreach.", or_null(FLAG), without="AdamW chooses"
    )


@dataclass(frozen=True)
class Phase:
    """Optimisation of a phase of training: the rate rises linearly, then falls linearly."""

    optim_conf: Optim | None = option("Options of the optimizer.")
    warmup_steps: int | None = option(
        "Updates of rising rate, at most a tenth of all updates.", whole(0), unit="updates"
    )
    floor: float | None = option("Final rate, as a share of lr.", SHARE, without="0.02")
    lr_rule: str | None = option(
        "Factor of all rates with `batch.per: gpu` on N GPUs: none is 1, sqrt is √N, linear is N.",
        one_of("none", "sqrt", "linear"),
        without="none",
    )


@dataclass(frozen=True)
class Phases:
    """The phases of training."""

    ctc: Phase | None = option("The CTC warm-up of the adapters (`warmup: ctc`).")
    llm: Phase | None = option("Training through the LLM.")


@dataclass(frozen=True)
class Budget:
    """The length of training; it has either `steps` or `epochs`."""

    steps: int | None = option("Length of the training through the LLM.", whole(1), unit="batches")
    epochs: float | None = option(
        "The same in passes over the data; one pass has the batches of all tasks together.",
        POSITIVE,
        unit="passes",
    )
    ctc_steps: int | None = option("Length of the CTC warm-up.", whole(1), unit="batches")
    steps_per_epoch: int | None = option(
        "Largest number of steps between two checkpoints.", whole(1), unit="batches"
    )


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases, next to TensorBoard. A login, or WANDB_MODE, is in the environment."""

    project: str | None = option("The project that runs appear in.", TEXT)
    entity: str | None = option("A user or a team.", TEXT, without="that of the login")


# Keys of a scale that belong to a run, not to its result: a resumed training may change them.
RUNNING = ("num_workers", "log_interval", "checkpoint_minutes", "wandb")
# Keys of llm_conf that change memory and time, but no result: a resumed training may change them.
MEMORY = ("gradient_checkpointing", "shard")
# Keys of a scale that say how its models are decoded: they change no training.
DECODING = ("max_new_tokens", "max_tokens_per_second", "no_repeat_ngram_size")


@dataclass(frozen=True)
class Scale:
    """A file of conf/scale: the models and their training."""

    encoders: dict[str, Encoder] | None = option(
        "The encoders, by name (the folder of their dump)."
    )
    stand_ins: dict[str, str] | None = option(
        "Family that the scale lacks → the encoder that `use_encoders` takes instead.",
        keys=lambda: {ANY: Key("An encoder of the scale.", TEXT)},
    )
    llm_conf: dict[str, Any] | None = option("The LLM and its LoRA.", keys=llm_options)
    feats: str | None = option(
        "dumped: encoder states are read from disk; online: the encoders run during training.",
        one_of("dumped", "online"),
    )
    warmup: str | None = option("Warm-up of the adapters: ctc or none.", one_of("ctc", "none"))
    warmup_tasks: list[str] | None = option(
        "Tasks whose texts are CTC targets in the warm-up.",
        NAMES,
        default=["asr_clean", "asr_noisy"],
    )
    batch: Batch | None = option("The size of a batch.")
    prompts_per_batch: int = option(
        "Distinct prompts of a batch; 0: one for each utterance.",
        whole(0),
        default=0,
        unit="prompts",
    )
    router_prompts: int = option(
        "Prompts of an utterance that train the router; the LLM reads only the first.",
        whole(1),
        default=1,
        unit="prompts",
    )
    prompt_bank: int = option(
        "Draws of each task's training prompts that training uses; their states are computed once "
        "and kept, which needs llm_conf.lora_on_prompt: false. 0: all prompts, read in every step.",
        whole(0),
        default=0,
        unit="prompts",
    )
    plain_prompts: bool | None = option(
        "Training draws plain requests, and every prompt in several spellings; false: the long "
        "prompts as they are written, as in the paper.",
        or_null(FLAG),
        without="true",
    )
    max_new_tokens: int | None = option(
        "Largest length of a decoded answer. pam.bin.decode --max_new_tokens overrides it.",
        or_null(whole(1)),
        unit="tokens",
        without="128",
    )
    max_tokens_per_second: float | None = option(
        "Largest length of a decoded answer for a second of audio, but at least 16 tokens; 0: no "
        "such limit. pam.bin.decode --max_tokens_per_second overrides it.",
        or_null(NUMBER),
        unit="tokens",
        without="8",
    )
    no_repeat_ngram_size: int = option(
        "No decoded answer has a sequence of so many tokens twice, as in transformers; 0: all may. "
        "pam.bin.decode --no_repeat_ngram_size overrides it.",
        whole(0),
        default=0,
        unit="tokens",
    )
    dev_utts: int = option(
        "Utterances of each task for validation; 0: all.",
        whole(0),
        default=0,
        unit="utterances",
    )
    num_workers: int = option(
        "Processes that read batches; 0: the training process reads them.",
        whole(0),
        default=0,
        unit="processes",
    )
    accum_grad: int = option("Batches per update.", whole(1), default=1, unit="batches")
    grad_clip: float = option("Largest norm of the gradient.", POSITIVE, default=1.0)
    keep_nbest_models: int = option(
        "Number of checkpoints to keep and average: those with the lowest validation loss.",
        whole(1),
        default=1,
        unit="checkpoints",
    )
    log_interval: int = option(
        "Batches between two lines of the log.", whole(1), default=50, unit="batches"
    )
    checkpoint_minutes: float = option(
        "Time between two checkpoints inside an epoch; a killed training loses at most as much.",
        POSITIVE,
        default=10.0,
        unit="minutes",
    )
    length_jitter: float | None = option(
        "Lengths change at random by at most this share before utterances are sorted into batches: "
        "0.1 varies the batches of a small corpus by pass; less has less padding.",
        SHARE,
        without="0.1",
    )
    wandb: Wandb | None = option("Logging to Weights & Biases, if it has a project.")
    phases: Phases | None = option("Optimisation of the phases of training.")
    budgets: dict[str, Budget] | None = option("Lengths of training: --budget names one.")


@dataclass(frozen=True)
class System:
    """A file of conf/systems: the fusion and its requirements."""

    fusion: str | None = option(
        "The fusion, which turns encoder states into features of the LLM (pam/fusion).",
        TEXT,
        kind="fusion",
        choices=fusion_names,
    )
    fusion_conf: dict[str, Any] | None = option(
        "Options of the fusion.", default={}, keys=fusion_options
    )
    fusions: dict[str, Any] | None = option(
        "Options for single fusions, by name; they replace the scale's fusion_conf.",
        keys=options_of_each_fusion,
    )
    use_encoders: list[str] | None = option(
        "The encoders of the scale that the system uses, by name or family.",
        ANYTHING,
        without="all of the scale",
    )
    router_conf: dict[str, Any] | None = option(
        "Options of the prompt router.", default={}, keys=router_options
    )
    model_conf: dict[str, Any] | None = option(
        "Options of the Speech LLM.", default={}, keys=model_options
    )
    tasks: list[str] | None = option(
        "The tasks, one expert each.", or_null(DISTINCT), without="those of the training data"
    )
    trainable: list[Any] | None = option(
        "Patterns of the trained parameters, such as fusion.experts.4.*.",
        PATTERNS,
        without="all",
    )
    merge_asr_prompts: bool = option(
        "Clean and noisy recognition share their prompts.", FLAG, default=False
    )


@dataclass(frozen=True)
class Experiment(System, Scale):
    """A system at a scale. Each file may also set keys of the other; the system's value wins.

    The order is scale < LLM file < system < command line.
    """
