"""What a trained model uses and how it routes: it measures (analysis.json) and draws."""
