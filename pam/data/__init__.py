"""Data: audio files, archives of features, Kaldi-style data directories, tasks and prompts."""
