#!/usr/bin/env bash
# Say what is wrong with data directories, where, and how to mend it; exit status 1 if anything is.
#
#   utils/validate_data_dir.sh DIR... [--audio none|exists|decode] [--all]
set -euo pipefail

root=$(cd "$(dirname "$(realpath "$0")")/.." && pwd)
export PATH="${PAM_VENV:-$root/tools/venv}/bin:$PATH" PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec python3 -m pam.bin.validate "$@"
