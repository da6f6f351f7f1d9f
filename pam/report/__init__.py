"""Reports: results.json and RESULTS.md, written by a program; what was not measured stays a gap."""
