"""Analysis of a trained model: the layers it uses and its routing (analysis.json, figures)."""
