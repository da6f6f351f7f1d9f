"""Drafters of lossless search (`pam.decode.search`), each in its own file."""

from pam.registry import Registry

DRAFTERS = Registry(
    "drafter",
    {
        "ctc": "pam.decode.drafters.ctc:CTCDrafter",
        "exit_layer": "pam.decode.drafters.exit_layer:ExitLayerDrafter",
        "prompt_lookup": "pam.decode.drafters.prompt_lookup:PromptLookupDrafter",
    },
)
