"""The LLM: any causal language model of transformers, frozen, with LoRA."""
