"""PaM: Speech LLMs that hear through a prompt-aware mixture of audio encoders."""

__version__ = "0.1.0"
