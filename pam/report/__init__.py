"""Reports of experiments: results.json, RESULTS.md and report.html. Missing values are shown."""
