#!/bin/bash
# pack_te.sh DIRECTORY: transformer_engine for CUDA 13 and Hopper in about 12 MB, for a machine without network: the library,
# the source of its torch extension (which that machine builds, build_te.sh), and the small packages that it imports.
# PYTHON: a Python with torch; any build will do, since only its version is asked.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(readlink -m "$1") python=${PYTHON:-python3} version=2.11.0
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m pip download -q --no-deps -d "$work" "transformer-engine-cu13==$version"
mkdir "$work/core"
(cd "$work/core" && python3 -m zipfile -e "$work"/transformer_engine_cu13-*.whl . && rm -rf transformer_engine/jax)
# Most of its 463 MB is machine code of other GPUs: that becomes zeros, which the archive does not keep.
python3 "$here/one_arch.py" "$work/core/transformer_engine/wheel_lib/libtransformer_engine.so" 90
tar -C "$work/core" -cf - . | xz -T0 -6 >"$out/core.tar.xz"

# pip asks the source for its metadata, and that asks torch for the CUDA version, which a CPU build does not have.
"$python" -m venv --system-site-packages "$work/venv"
site=$(echo "$work"/venv/lib/python3*/site-packages)
"$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])' >"$site/seen.pth"
"$work/venv/bin/pip" install -q setuptools wheel pybind11
printf 'import torch.version\ntorch.version.cuda = "13.0"\n' >"$site/sitecustomize.py"
"$work/venv/bin/pip" download -q --no-deps --no-build-isolation -d "$out" "transformer-engine-torch==$version"
python3 -m pip download -q --no-deps -d "$out" "transformer-engine==$version"
python3 -m pip download -q --no-deps -d "$out" --python-version 3.12 --only-binary=:all: -r "$here/packages/te.txt"
ls -l "$out"
