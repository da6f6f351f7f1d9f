"""The Speech LLM, which combines encoders, fusion and LLM."""
