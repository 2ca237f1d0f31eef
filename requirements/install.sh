#!/bin/sh
# Installs selfinstruct-local from the bundle that contains this file, without using a network.
# Run it again to resume: complete steps are kept, interrupted ones are repeated.
set -eu

usage() {
  echo "usage: sh install.sh [TARGET_DIR] [--python PYTHON]"
  echo "  TARGET_DIR  folder for .venv with everything in it (default: ~/selfinstruct-local)"
  echo "  --python    Python interpreter, of the version in about.txt"
}

# Prints a line to stderr and exits with code 1, or 2 for wrong usage.
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

# Prints why the interpreter $1 cannot be used, or nothing.
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
      [ $# -gt 1 ] || fail "--python: needs an interpreter as its value" 2
      python=$2
      shift
      ;;
    --python=*) python=${1#--python=} ;;
    -*) fail "$1: no such option; 'sh install.sh --help' lists them" 2 ;;
    *)
      [ -z "$target" ] || fail "$1: a second TARGET_DIR; name only one" 2
      target=$1
      ;;
  esac
  shift
done
target=${target:-$HOME/selfinstruct-local}

# 1. Check the files before any of them is used or run.
command -v sha256sum >/dev/null || fail "sha256sum is missing (package coreutils)"
[ -f "$bundle/MANIFEST.sha256" ] || fail "$bundle: no MANIFEST.sha256: the bundle is incomplete; copy it again"
say "checking the files of $bundle"
if ! checked=$(cd "$bundle" && LC_ALL=C sha256sum --check --quiet --strict MANIFEST.sha256 2>/dev/null); then
  damaged=$(printf '%s\n' "$checked" | sed -n 's/: FAILED.*//p' | head -n 4 | paste -s -d ' ' -)
  fail "$bundle: damaged or missing: ${damaged:-MANIFEST.sha256}; copy the bundle again"
fi

# 2. Choose and check the Python interpreter.
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

# 3. Install the wheels. The marker file holds the checksum of the bundle once all are installed.
if ! mkdir -p "$target" 2>/dev/null || ! [ -w "$target" ]; then
  fail "$target: cannot be written to; name another TARGET_DIR" 2
fi
target=$(CDPATH='' cd -- "$target" && pwd)
venv=$target/.venv
mark=$target/.selfinstruct-bundle
[ -e "$mark" ] || [ ! -e "$venv" ] || fail "$venv exists and was not made by this script; name another TARGET_DIR" 2
this=$(sha256sum <"$bundle/MANIFEST.sha256")
# pip ignores its configuration files and environment variables, which may name indexes.
PIP_CONFIG_FILE=/dev/null
export PIP_CONFIG_FILE
if [ "$(cat "$mark" 2>/dev/null)" = "$this" ] && [ -z "$(python_fault "$venv/bin/python" 2>/dev/null)" ]; then
  say "the wheels are already installed in $venv"
else
  : >"$mark"
  "$python" -m venv --clear "$venv" || fail "$venv: cannot be created; see above"
  say "installing the wheels into $venv (some minutes)"
  "$venv/bin/python" -I -m pip --isolated install --quiet --no-index --no-deps --find-links "$bundle/wheels" \
    -r "$bundle/$(fact lock)" "selfinstruct-local==$(fact version)" ||
    fail "pip could not install the wheels, see above; fix that and run the same command again"
  echo "$this" >"$mark"
fi

# 4. Copy the model to where selfinstruct looks for it. An existing model is not touched.
models=$("$venv/bin/python" -I -c 'from selfinstruct_local.models.folder import cache_folder; print(cache_folder())')
mkdir -p "$models" || fail "$models: cannot be created; set SELFINSTRUCT_CACHE to a writable folder"
aside=$models/.bundle.$$
trap '[ ! -e "$aside" ] || { chmod -R u+w "$aside" && rm -rf "$aside"; }' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for model in "$bundle"/models/*/; do
  model=${model%/}
  name=${model##*/}
  if [ -e "$models/$name" ]; then
    say "$models/$name already exists and is left unchanged"
  else
    if ! { cp -R "$model" "$aside" && chmod -R u+w "$aside" && mv -T "$aside" "$models/$name"; }; then
      fail "$models/$name: the model could not be copied, see above; run the same command again"
    fi
    say "copied the model to $models/$name"
  fi
done

# 5. Check the machine.
"$venv/bin/selfinstruct" doctor --out "$target" ||
  fail "installed in $venv, but this machine is not ready: fix the failed checks and run the same command again"
echo "installed in $target; start with"
echo "  $venv/bin/selfinstruct demo --run $target/runs/demo"
