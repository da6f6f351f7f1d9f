#!/usr/bin/env bash
# Make a recipe for another corpus: copies egs/TEMPLATE.
#
#   utils/new_recipe.sh NAME
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    echo "error: $*" >&2
    exit 1
}

name=${1-}
[[ $# == 1 && $name =~ ^[a-z][a-z0-9_]*$ ]] || die "usage: utils/new_recipe.sh NAME, lower case, as in my_corpus"
recipe=$root/egs/$name
[[ ! -e $recipe ]] || die "$recipe exists already: choose another name, or remove it"

rm -rf "$recipe.part" # left by a killed run
cp -r "$root/egs/TEMPLATE" "$recipe.part"
rm -rf "$recipe.part"/{data,dump,exp} "$recipe.part/local/__pycache__"
find "$recipe.part" -type f -exec sed -i "s/TEMPLATE/$name/g" {} +
mv "$recipe.part" "$recipe"
echo "made egs/$name. Next: CORPUS=/path/to/your/corpus egs/$name/run.sh --config conf/tiny.conf"
