"""Configuration files, their types, and what a folder was made with; torch is not imported."""

from pam.config.files import (
    check_init_options,
    check_keys,
    load_yaml,
    merge,
    parse_value,
    set_option,
)

__all__ = [
    "check_init_options",
    "check_keys",
    "load_yaml",
    "merge",
    "parse_value",
    "set_option",
]
