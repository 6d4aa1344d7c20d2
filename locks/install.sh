#!/usr/bin/env bash
# Makes .venv from locks/cpu.txt, or with DEVICE=gpu from locks/gpu.txt; what `make env` runs. At once when there is nothing to do; safe
# to run again after a failure. PYTHON=... chooses the interpreter. An environment keeps its DEVICE until another one is given.
# Writes to .venv and to pip's cache, nowhere else.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
stamp=$venv/installed
log=$venv/install.log
device=${DEVICE:-$(cat "$venv/device" 2>/dev/null || echo cpu)}
lock=$root/locks/$device.txt
driver=580 # of NVIDIA, the oldest that runs CUDA 13
processes=3 # pip downloads one file at a time and unpacks in one thread

say() { echo "env: $*"; }
fail() {
  echo "env: error: $*" >&2
  exit 1
}

case $device in cpu | gpu) ;; *) fail "DEVICE=$device: give cpu or gpu" ;; esac

wanted=$(printf '%s\n' "$root"; cat "$lock" "${BASH_SOURCE[0]}" | sha256sum)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  say "up to date"
  exit 0
fi
began=$SECONDS

# A candidate is run, not just found: a version manager's shim exists for versions that are not installed.
suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || fail "PYTHON=$PYTHON is not a working Python 3.11 or 3.12"
    echo "$PYTHON"
    return
  fi
  for candidate in python3.12 python3.11 python3 python; do
    if suits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or 3.12 found; install one (apt-get install python3 python3-venv python3-dev) or name it with PYTHON=..."
}

[ "$(uname -s)" = Linux ] || fail "vLLM and DeepSpeed run on Linux only; this is $(uname -s)"
python=$(find_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing; apt-get install python$version-venv"
command -v "${CXX:-c++}" >/dev/null || fail "no C++ compiler (${CXX:-c++}), which DeepSpeed needs; apt-get install g++"
"$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
  fail "Python's C headers are missing, which DeepSpeed needs; apt-get install python$version-dev"

if [ "$device" = gpu ]; then
  found=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
  [ -n "$found" ] || fail "DEVICE=gpu: nvidia-smi finds no GPU with a driver; install NVIDIA's driver $driver or newer, or leave DEVICE out"
  [ "${found%%.*}" -ge "$driver" ] || fail "DEVICE=gpu: NVIDIA's driver is $found; CUDA 13 needs $driver or newer"
fi

# The scripts of an environment contain its path and its Python: one that was moved or made with another is replaced.
if [ -d "$venv" ] && { [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$root" ] ||
  [ "$(cat "$venv/device" 2>/dev/null || echo cpu)" != "$device" ] ||
  [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ]; }; then
  clear=--clear
fi
say "Python $("$python" -c 'import platform; print(platform.python_version())') in .venv"
"$python" -m venv ${clear:-} "$venv" || fail "$python cannot make a virtual environment in $venv"
printf '%s\n' "$root" >"$stamp" # its first line alone: made here, not complete
echo "$device" >"$venv/device"
: >"$log"

pip_install() {
  "$venv/bin/python" -m pip install --no-deps --no-compile --no-input --disable-pip-version-check --progress-bar off -qq "$@"
}

# The log goes to the terminal when it says why something failed.
install_torch() {
  local torch
  torch=$(grep '^torch==' "$lock")
  pip_install "$torch" >>"$log" 2>&1 && return
  [ "$device" = cpu ] || return
  say "pip finds no $torch; trying PyTorch's own index through uv"
  pip_install uv >>"$log" 2>&1 &&
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --torch-backend=cpu "${torch%+cpu}" >>"$log" 2>&1
}

packages=$(grep -cv '^#' "$lock")
size="about 700 MB"
[ "$device" = cpu ] || size="several GB"
say "installing $packages packages for the ${device^^}, $size to download"
work=$(mktemp -d "$venv/install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'trap - TERM; kill 0' INT # jobs of a script do not see Ctrl-C themselves
grep -v -e '^#' -e '^torch==' "$lock" | split -n "r/$((processes - 1))" - "$work/part."
running=()
install_torch &
running+=($!)
for part in "$work"/part.*; do
  pip_install -r "$part" >>"$log" 2>&1 &
  running+=($!)
done
for job in "${running[@]}"; do
  wait "$job" || failed=1
done
if [ -n "${failed:-}" ]; then
  cat "$log" >&2
  fail "pip could not install the packages (its output is above); repair the cause and run make env again"
fi

# The first import compiles the modules that are used (compiling all would take another minute) and tests the installation.
say "importing the engines once"
env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -c 'import deepspeed, ray.train, torch, transformers.models.llama.modeling_llama, vllm.v1.engine.async_llm' \
  >>"$log" 2>&1 || {
  tail -n 20 "$log" >&2
  fail "the packages are installed but do not import (last lines above); see $log"
}
"$venv/bin/python" - "$root" <<'EOF'
import pathlib
import sys
import sysconfig

# Makes the project importable from any folder. The copy of a submitted job comes earlier on the path.
pathlib.Path(sysconfig.get_path("purelib"), "chimed-rlhf.pth").write_text(sys.argv[1] + "\n")
command = pathlib.Path(sysconfig.get_path("scripts"), "chimed")
command.write_text(f"#!{sys.executable}\nimport sys\n\nfrom chimed.__main__ import main\n\nsys.exit(main())\n")
command.chmod(0o755)
EOF
printf '%s\n' "$wanted" >"$stamp"
say "ready after $((SECONDS - began)) s"
