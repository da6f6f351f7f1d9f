"""Exported models: Hugging Face folders that need no installation of PaM, merged LLMs, adapters."""
