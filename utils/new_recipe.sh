#!/usr/bin/env bash
# Make a recipe for another corpus: copies egs/TEMPLATE. The variable of its folder is NAME in capitals.
#
#   utils/new_recipe.sh NAME
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/utils/path.sh" # what it sets is no name for a folder

die() {
    echo "error: $*" >&2
    exit 1
}

name=${1-}
[[ $# == 1 && $name =~ ^[a-z][a-z0-9_]*$ ]] || die "usage: utils/new_recipe.sh NAME, lower case, as in my_corpus"
recipe=$root/egs/$name
[[ ! -e $recipe ]] || die "$recipe exists already: choose another name, or remove it"
folder=${name^^} # the variable of its db.sh, which the environment may set
if [[ -n ${!folder+set} || $folder == PAM_* ]]; then
    die "$folder, the variable of the corpus' folder, has a value or a meaning already: unset it, or choose another name"
fi
used=$(cd "$root" && awk -F= -v name="$folder" '$1 == name { print FILENAME }' egs/*/db.sh)
if [[ -n $used ]]; then
    die "$folder, the variable of the corpus' folder, is one of ${used//$'\n'/ } too: choose another name"
fi

rm -rf "$recipe.part" # left by a killed run
cp -r "$root/egs/TEMPLATE" "$recipe.part"
rm -rf "$recipe.part"/{data,dump,exp} "$recipe.part/local/__pycache__"
find "$recipe.part" -type f -exec sed -i "s/TEMPLATE/$name/g; s/\bCORPUS\b/$folder/g" {} +
mv "$recipe.part" "$recipe"
echo "made egs/$name. Next: $folder=/path/to/your/corpus egs/$name/run.sh --config conf/tiny.conf"
