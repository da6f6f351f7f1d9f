#!/usr/bin/env bash
# Everything that has to hold: style of Python and shell, and all tests, with real weights and audio.
#
#   test/run.sh            installs and fetches what is missing, then checks all
#   test/run.sh --quick    style, and the tests that test/slow.txt does not list: at every change
#   test/run.sh -k fusion  other arguments go to pytest
#
# test/README.md says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
started=$SECONDS
[[ ${1-} == --quick ]] && set -- -m "not slow" "${@:2}"

step() {
    echo "== $((SECONDS - started)) s: $*"
}

step "install"
tools/install.sh --test
export PATH="${PAM_VENV:-$PWD/tools/venv}/bin:$PATH" PYTHONPATH=$PWD PYTHONUTF8=1 LC_ALL=C.UTF-8
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
unset PYTHONDONTWRITEBYTECODE # compiling torch's and ESPnet's files again costs each process 9 s

step "models, corpora, WordNet"
python3 tools/fetch_models.py whisper-tiny-en moonshine-base wakehubert-tiny yamnet resemblyzer \
    smollm2-135m-instruct
python3 tools/fetch_corpora.py
python3 tools/fetch_wordnet.py

step "style"
ruff check .
ruff format --check .
mapfile -t scripts < <(find egs test tools utils -name '*.sh' -not -path 'tools/venv/*')
shellcheck --external-sources --source-path=SCRIPTDIR .ci/run "${scripts[@]}"

step "tests"
workers=$(python3 -c "from pam.device import cores; print(min(cores(), 4))") # each takes up to 3 GB
python3 -m pytest -c test/pytest.ini test -n "$workers" --dist loadfile --no-loadscope-reorder \
    --durations 10 -r fEs "$@"
step "all is well"
