#!/bin/bash
# bundle.sh ARCHIVE [CHECKOUT]: what a GPU machine without network lacks, for Python 3.12 on x86-64, in one archive of
# about 50 MB. CHECKOUT: a NeMo-RL source tree (github.com/NVIDIA-NeMo/RL). PARTS: core (Slurm and what Overnight and TRL
# need), nemo, nemo_rl, automodel; the first three if it is not set. One without core is for a machine that has it already. On Debian 12, whose Slurm is taken along; a machine that has Slurm, or the network, needs less.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
archive=$(readlink -m "$1") checkout=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{wheels,packed/{core,nemo,nrl,rl,am,sl/lib-extra},debs,libraries}

platforms=(manylinux1_x86_64 manylinux2014_x86_64)
for number in 5 12 17 24 26 27 28 31 34 35 39; do platforms+=("manylinux_2_${number}_x86_64"); done
fetch() { # NAME OF A LIST
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]/#/--platform=}" -d "$work/wheels/$1" -r "$here/packages/$1.txt"
}
unpack() { # LIST WHERE
  python3 -m pip install -q --no-index --no-deps --no-compile --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]/#/--platform=}" --target "$work/packed/$2" "$work/wheels/$1"/*.whl
}
parts=" ${PARTS:-core nemo nemo_rl} "
sources() { # WHERE: two that exist as source only, both plain Python
  python3 -m pip wheel -q --no-deps -w "$work/wheels/$1" -r "$here/packages/sources.txt"
}
packed=()
if [[ $parts == *" core "* ]]; then
  packed+=(core sl)
  fetch core
  unpack core core
  # Of bitsandbytes the kernels of CUDA 13.0 alone: 4 of 150 MB.
  find "$work/packed/core/bitsandbytes" -name 'libbitsandbytes_*.so' -not -name '*cuda130.so' -not -name '*cpu.so' -delete
fi
if [[ $parts == *" nemo "* ]]; then
  packed+=(nemo)
  fetch nemo
  sources nemo
  unpack nemo nemo
  rm -rf "$work/packed/nemo/tests"
  for part in asr tts audio vlm diffusion speechlm speechlm2 avlm; do rm -rf "$work/packed/nemo/nemo/collections/$part"; done
fi
if [[ $parts == *" nemo_rl "* ]]; then
  packed+=(nrl rl)
  fetch nemo_rl
  sources nemo_rl
  rm -f "$work"/wheels/nemo_rl/wget*.whl
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]/#/--platform=}" -d "$work/wheels/nemo_rl" ray==2.56.0
  unpack nemo_rl nrl
  for part in jars rllib serve tune train llm dashboard/client cpp; do rm -rf "$work/packed/nrl/ray/$part"; done
  [ -z "$checkout" ] || cp -r "$checkout/nemo_rl" "$checkout/examples" "$work/packed/rl/"
fi

if [[ $parts == *" automodel "* ]]; then
  packed+=(am)
  fetch automodel
  unpack automodel am
  # Kernels of torchao are for another torch; it says so and goes on without.
  rm -rf "$work"/packed/am/torchao/*.so
fi

if [[ $parts == *" core "* ]]; then
  mapfile -t debian <"$here/packages/debian.txt"
  (cd "$work/debs" && apt-get download -qq "${debian[@]}")
  for file in "$work"/debs/*.deb; do dpkg -x "$file" "$work/libraries"; done
  for name in slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libslurm38; do
    dpkg -x "$work/debs/$name"_*.deb "$work/packed/sl"
  done
  rm -rf "$work/packed/sl/usr/share"
  cp -a "$work"/libraries/{usr/,}lib/x86_64-linux-gnu/*.so* "$work/packed/sl/lib-extra/" 2>/dev/null || true
fi
tar -C "$work/packed" -cf - "${packed[@]}" | xz -T0 --lzma2=preset=6,dict=96MiB >"$archive"
ls -l "$archive"
