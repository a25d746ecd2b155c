#!/bin/bash
# build_te.sh PACKED SITE: what pack_te.sh made becomes a directory of packages, its torch extension built for Hopper
# (94 s on 16 cores). On a machine with nvcc 13 and, in PYTHON or python3, torch for CUDA 13.
set -euo pipefail
packed=$(readlink -f "$1") site=$(readlink -m "$2") python=${PYTHON:-python3}
mkdir -p "$site"
"$python" - "$packed" "$site" <<'P'
import glob, sys, tarfile, zipfile

packed, site = sys.argv[1:]
tarfile.open(packed + "/core.tar.xz").extractall(site, filter="fully_trusted")
for name in glob.glob(packed + "/*.whl"):
    zipfile.ZipFile(name).extractall(site)
tarfile.open(glob.glob(packed + "/*.tar.gz")[0]).extractall(site + "/source", filter="fully_trusted")
P
chmod +x "$site"/bin/* "$site"/ninja/data/bin/* 2>/dev/null || true
nvidia=$("$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1] / "nvidia")')
CPATH=$(find "$nvidia" -maxdepth 3 -name include | tr '\n' ':')${CPATH:-}
export CPATH CUDNN_HOME=$nvidia/cudnn CUDNN_PATH=$nvidia/cudnn CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
export NVTE_CUDA_ARCHS=90 TORCH_CUDA_ARCH_LIST=9.0 MAX_JOBS=${MAX_JOBS:-$(nproc)}
export PYTHONPATH=$site PATH=$site/ninja/data/bin:$site/bin:$PATH
(cd "$site"/source/transformer_engine_torch-* && "$python" setup.py -q build_ext --build-lib "$site/built")
cp "$(find "$site/built" -name 'transformer_engine_torch*.so' | head -n1)" "$site/transformer_engine/wheel_lib/"
rm -rf "$site/source" "$site/built"
