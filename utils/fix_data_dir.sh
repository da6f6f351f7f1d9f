#!/usr/bin/env bash
# Sort data directories, drop bad entries and print the reasons. Originals are kept in DIR/.backup/,
# those of a second time in DIR/.backup.1/, and so on.
#
#   utils/fix_data_dir.sh DIR... [--audio none|exists|decode] [--all]
set -euo pipefail

root=$(cd "$(dirname "$(realpath "$0")")/.." && pwd)
export PATH="${PAM_VENV:-$root/tools/venv}/bin:$PATH" PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec python3 -m pam.bin.validate --fix "$@"
