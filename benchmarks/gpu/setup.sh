#!/bin/bash
# setup.sh ARCHIVE DIRECTORY: what bundle.sh packed becomes environments and a running Slurm in DIRECTORY; as root.
# Another archive for the same DIRECTORY adds its environments.
# Python: PYTHON or python3, with torch, transformers and accelerate; its packages are seen by all of them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
archive=$1 root=$(readlink -m "$2") python=${PYTHON:-python3}
mkdir -p "$root"
"$python" - "$archive" "$root/packed" <<'P'
import sys, tarfile

with tarfile.open(sys.argv[1]) as archive:
    archive.extractall(sys.argv[2], filter="fully_trusted")
P
packed=$root/packed

if ! command -v slurmctld >/dev/null; then
  cp -an "$packed/sl/usr/." /usr/
  for name in slurmd slurmctld slurmstepd; do
    [ -e "/usr/sbin/$name" ] || ln -s "$name-wlm" "/usr/sbin/$name"
  done
  # Only what the machine itself lacks.
  mkdir -p /usr/local/lib/slurm-extra
  for file in /usr/sbin/slurm*-wlm /usr/bin/sinfo /usr/lib/x86_64-linux-gnu/slurm-wlm/*.so; do
    ldd "$file" 2>/dev/null || true
  done | awk '/not found/ {print $1}' | sort -u | while read -r library; do
    cp -an "$packed/sl/lib-extra/${library%%.so*}".so* /usr/local/lib/slurm-extra/ 2>/dev/null || true
  done
  echo /usr/local/lib/slurm-extra >/etc/ld.so.conf.d/slurm-extra.conf
  ldconfig
fi

seen=$("$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])')
environment() { # NAME WHERE [LINE]: packages of our own first, then the machine's
  local site
  "$python" -m venv --without-pip "$root/venvs/$1"
  site=$(echo "$root/venvs/$1"/lib/python3*/site-packages)
  { echo "$2"; [ -z "${3:-}" ] || echo "$3"; echo "import site; site.addsitedir('$seen')"; } >"$site/zz_seen.pth"
}
# Compiled once, on all cores, and not in the first job of each environment.
compiled() { "$python" -m compileall -q -j 0 "$1" >/dev/null 2>&1 || true; }
if [ ! -e "$root/venvs/core" ]; then
  compiled "$packed/core"
  environment core "$packed/core" "$(cd "$here/../.." && pwd)"
fi
export SLURM_CONF=$root/slurm/etc/slurm.conf
sinfo -h >/dev/null 2>&1 || bash "$here/slurm.sh" "$root/slurm" up # before the rest: what needs the first environment alone can begin
new() { [ -d "$packed/$1" ] && [ ! -e "$root/venvs/$2" ]; }
if new nemo nemo; then
  compiled "$packed/nemo"
  # What pack_te.sh made lies beside the archive, or nowhere.
  te=$(dirname "$(readlink -f "$archive")")/te
  [ ! -d "$te" ] || compgen -G "$packed/te/transformer_engine/wheel_lib/transformer_engine_torch*.so" >/dev/null ||
    bash "$here/build_te.sh" "$te" "$packed/te"
  environment nemo "$packed/nemo" "$([ ! -d "$te" ] || echo "$packed/te")"
  cp "$here/absent.py" "$packed/nemo/"
  # The machine's own packages are compiled for numpy 2, so numpy 1 cannot be brought. absent.py puts back what
  # megatron-core misses in it; the probe of `nemo` goes by the version, which is said to be 1.
  mkdir -p "$packed/nemo/numpy-1.26.4.dist-info"
  printf 'Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n' >"$packed/nemo/numpy-1.26.4.dist-info/METADATA"
  echo "import absent" >"$(echo "$root"/venvs/nemo/lib/python3*/site-packages)/zzz_absent.pth"
  [ ! -d "$te" ] || "$root/venvs/nemo/bin/python" -c 'import transformer_engine.pytorch as te; print("transformer_engine", te.__file__)'
fi
if new nrl nemo_rl; then
  compiled "$packed/nrl"
  environment nemo_rl "$packed/nrl" "$packed/rl"
  for name in wandb mlflow swanlab decord; do [ -e "$packed/nrl/$name.py" ] || : >"$packed/nrl/$name.py"; done # imported by NeMo-RL, not used
  # NeMo-RL imports these of Megatron, which its DTensor workers do not use.
  if [ ! -e "$packed/nrl/megatron" ]; then
    mkdir -p "$packed/nrl/megatron/core/models/gpt"
    touch "$packed"/nrl/megatron/{,core/,core/models/}__init__.py
    echo "GPTModel = None" >"$packed/nrl/megatron/core/models/gpt/__init__.py"
    echo "def __getattr__(name): return None" >"$packed/nrl/megatron/core/parallel_state.py"
    cp "$packed"/nrl/megatron/core/{parallel_state,utils}.py
  fi
  chmod -R u+x "$packed/nrl/ray/core/src/ray"
fi
if new am automodel; then
  compiled "$packed/am"
  environment automodel "$packed/am"
  "$root/venvs/automodel/bin/python" -c 'import nemo_automodel.recipes.llm.train_ft; print("nemo_automodel")'
fi
