"""One experiment, written by a program: results.json, RESULTS.md, report.html. Gaps are shown."""
