"""One module a model: reads the file that its package ships, writes a Hugging Face folder."""
