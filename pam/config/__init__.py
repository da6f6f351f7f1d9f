"""Configuration files, their types, and made.json. This room does not import torch."""

from pam.config.experiment import (
    PARTS,
    check_budget,
    check_parts,
    check_phases,
    compose,
    read_experiment,
    read_layers,
    read_scale,
    require,
    scale_hash,
    select_encoders,
)
from pam.config.files import (
    load_yaml,
    merge,
    parse_value,
    set_option,
)
from pam.config.keys import defaults_of, keys_of, plain, typed
from pam.config.schema import DECODING, MEMORY, RUNNING, Budget, Experiment, Optim, Phases, Scale
from pam.options import check_init_options, check_keys

__all__ = [
    "DECODING",
    "MEMORY",
    "PARTS",
    "RUNNING",
    "Budget",
    "Experiment",
    "Optim",
    "Phases",
    "Scale",
    "check_budget",
    "check_init_options",
    "check_keys",
    "check_parts",
    "check_phases",
    "compose",
    "defaults_of",
    "keys_of",
    "load_yaml",
    "merge",
    "parse_value",
    "plain",
    "read_experiment",
    "read_layers",
    "read_scale",
    "require",
    "scale_hash",
    "select_encoders",
    "set_option",
    "typed",
]
