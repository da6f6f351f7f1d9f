"""The Speech LLM: encoders, fusion and LLM put together."""
