# shellcheck shell=bash
# Set PAM_ROOT and put the project's Python first in PATH. PAM_VENV replaces tools/venv.
PAM_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PAM_ROOT PATH="${PAM_VENV:-$PAM_ROOT/tools/venv}/bin:$PATH"
export PYTHONPATH="$PAM_ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONUTF8=1 LC_ALL=C.UTF-8
