#!/bin/sh
# Installs selfinstruct-local out of the bundle that this file lies in. No network is asked for anything.
# A second call goes on: what is installed whole stays, what was broken off is made anew.
set -eu

usage() {
  echo "usage: sh install.sh [TARGET_DIR] [--python PYTHON]"
  echo "  TARGET_DIR  gets .venv with everything in it (default: ~/selfinstruct-local)"
  echo "  --python    the interpreter, of the version that about.txt names"
}

# A line on stderr; exit code 1, or 2 for what was asked wrongly.
fail() {
  echo "install: $1" >&2
  exit "${2:-1}"
}

say() {
  echo "install: $1" >&2
}

fact() {
  sed -n "s/^$1=//p" "$bundle/about.txt"
}

# Prints what is wrong with the interpreter $1, or nothing.
python_fault() {
  "$1" -c '
import platform, sys, sysconfig
name, version, machine, glibc = sys.argv[1:]
number = lambda text: [int(part) for part in text.split(".")[:2]]
here = (platform.python_implementation(), "%d.%d" % sys.version_info[:2], sysconfig.get_platform())
if here != (name, version, machine):
    print("is %s %s on %s, and the wheels are for %s %s on %s" % (here + (name, version, machine)))
elif number(glibc) != [0, 0]:
    libc, found = platform.libc_ver()
    if libc != "glibc" or number(found) < number(glibc):
        print("runs on %s, and the wheels need glibc %s" % (" ".join((libc or "another libc", found)), glibc))
' "$(fact implementation)" "$(fact python)" "$(fact platform)" "$(fact glibc)" || echo "cannot be run"
}

bundle=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=
python=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --python)
      [ $# -gt 1 ] || fail "--python: name an interpreter after it" 2
      python=$2
      shift
      ;;
    --python=*) python=${1#--python=} ;;
    -*) fail "$1: no such option; 'sh install.sh --help' has them" 2 ;;
    *)
      [ -z "$target" ] || fail "$1: a second TARGET_DIR; name one" 2
      target=$1
      ;;
  esac
  shift
done
target=${target:-$HOME/selfinstruct-local}

# 1. The files, before any of them is believed or run.
command -v sha256sum >/dev/null || fail "sha256sum is missing (package coreutils)"
[ -f "$bundle/MANIFEST.sha256" ] || fail "$bundle: no MANIFEST.sha256, so the bundle is not whole; copy it again"
say "checking the files of $bundle"
if ! checked=$(cd "$bundle" && LC_ALL=C sha256sum --check --quiet --strict MANIFEST.sha256 2>/dev/null); then
  damaged=$(printf '%s\n' "$checked" | sed -n 's/: FAILED.*//p' | head -n 4 | paste -s -d ' ' -)
  fail "$bundle: damaged or missing: ${damaged:-MANIFEST.sha256}; copy the bundle again"
fi

# 2. The Python.
wanted=$(fact python)
if [ -z "$python" ]; then
  python=python3
  if "python$wanted" -c '' 2>/dev/null; then python=python$wanted; fi
fi
command -v "$python" >/dev/null || fail "$python: no such program; install Python $wanted or name one with --python" 2
fault=$(python_fault "$python")
[ -z "$fault" ] || fail "$python $fault; name another with --python" 2
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python has no venv module; on Debian: the package python$wanted-venv"

# 3. The wheels. The mark holds the checksum of the bundle once all of them are in.
if ! mkdir -p "$target" 2>/dev/null || ! [ -w "$target" ]; then
  fail "$target: cannot be written to; name another TARGET_DIR" 2
fi
target=$(CDPATH='' cd -- "$target" && pwd)
venv=$target/.venv
mark=$target/.selfinstruct-bundle
[ -e "$mark" ] || [ ! -e "$venv" ] || fail "$venv is there and not made by this script; name another TARGET_DIR" 2
this=$(sha256sum <"$bundle/MANIFEST.sha256")
# pip asks neither its settings nor its environment, which may name indexes.
PIP_CONFIG_FILE=/dev/null
export PIP_CONFIG_FILE
if [ "$(cat "$mark" 2>/dev/null)" = "$this" ] && [ -z "$(python_fault "$venv/bin/python" 2>/dev/null)" ]; then
  say "the wheels are installed already in $venv"
else
  : >"$mark"
  "$python" -m venv --clear "$venv" || fail "$venv could not be made; see above"
  say "installing the wheels into $venv (some minutes)"
  "$venv/bin/python" -I -m pip --isolated install --quiet --no-index --no-deps --find-links "$bundle/wheels" \
    -r "$bundle/$(fact lock)" "selfinstruct-local==$(fact version)" ||
    fail "pip could not install the wheels, see above; give the same command again when that is mended"
  echo "$this" >"$mark"
fi

# 4. The model, where selfinstruct looks for it. What is there is not touched.
models=$("$venv/bin/python" -I -c 'from selfinstruct_local.models.folder import cache_folder; print(cache_folder())')
mkdir -p "$models" || fail "$models: cannot be made; set SELFINSTRUCT_CACHE to a folder that can"
aside=$models/.bundle.$$
trap '[ ! -e "$aside" ] || { chmod -R u+w "$aside" && rm -rf "$aside"; }' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for model in "$bundle"/models/*/; do
  model=${model%/}
  name=${model##*/}
  if [ -e "$models/$name" ]; then
    say "$models/$name is there already and stays as it is"
  else
    if ! { cp -R "$model" "$aside" && chmod -R u+w "$aside" && mv -T "$aside" "$models/$name"; }; then
      fail "$models/$name: the model could not be copied, see above; give the same command again"
    fi
    say "copied the model to $models/$name"
  fi
done

# 5. Whether this machine is fit.
"$venv/bin/selfinstruct" doctor --out "$target" ||
  fail "all is installed in $venv, but what fails above would stop the work; mend it, and give the same command again"
echo "installed in $target; begin with"
echo "  $venv/bin/selfinstruct demo --run $target/runs/demo"
