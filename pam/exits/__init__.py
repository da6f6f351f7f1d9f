"""Early exit from the LLM, token by token (arXiv 2412.01455): exits.json and EARLY_EXIT.md."""
