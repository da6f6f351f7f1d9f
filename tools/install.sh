#!/usr/bin/env bash
# Install what the recipes need into tools/venv, at the versions of tools/constraints.txt.
#
#   tools/install.sh           returns at once when everything is there
#   tools/install.sh --test    also what test/run.sh needs
#
# PAM_VENV=/path/to/environment uses that one as it is. pip reads your own configuration (index,
# proxy, certificates). About 5.7 GB: PyPI's torch runs on GPUs and CPUs and brings its CUDA.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/tools/venv
more=serve,demo,test # extras that only tests need

die() {
    echo "error: $*" >&2
    exit 1
}

case ${1-} in
    "") extras=train,report ;;
    --test) extras=train,report,$more ;;
    *) die "$1: unknown; tools/install.sh takes --test or nothing" ;;
esac

if [[ -n ${PAM_VENV-} ]]; then
    [[ -x $PAM_VENV/bin/python3 ]] || die "PAM_VENV=$PAM_VENV: there is no bin/python3; unset it to use tools/venv"
    exit 0
fi

key=$(cat "$root/setup.py" "$root/tools/constraints.txt" | sha256sum | cut -c 1-16)
is_complete() {
    [[ -e $venv/.complete-$key-$extras || -e $venv/.complete-$key-train,report,$more ]]
}
is_complete && exit 0

# Two recipes that start at once install once.
exec 9>"$root/tools/.install.lock"
flock 9
is_complete && exit 0

find_python() { # 3.11, and not the one of the environment that is to be made
    local name
    for name in python3.11 python3 python; do
        name=$(PATH=${PATH//"$venv/bin:"/} command -v "$name") || continue
        if "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    die "Python 3.11 is needed (espnet 202511 is the last for it): install it, or set PAM_VENV to an environment that has it"
}

started=$SECONDS
echo "installing into $venv (once; about two minutes, 5.7 GB)"
if [[ ! -x $venv/bin/pip ]]; then
    python=$(find_python)
    "$python" -c 'import ensurepip' 2>/dev/null || die "$python cannot make environments: apt-get install python3-venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
# Compiling 60,000 files would take longer than compiling at import those that are used.
"$venv/bin/pip" install --quiet --no-compile --progress-bar off --disable-pip-version-check \
    --constraint "$root/tools/constraints.txt" --editable "${root}[$extras]" ||
    die "pip failed: see above; the same command tries again (what is installed is kept)"
"$venv/bin/pip" check
rm -f "$venv"/.complete-*
touch "$venv/.complete-$key-$extras"
echo "installed in $((SECONDS - started)) s"
