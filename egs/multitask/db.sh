# shellcheck shell=bash
# Nothing to point at: each corpus has a db.sh of its own, under egs/CORPUS.
