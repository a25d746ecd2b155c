#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
cd /scratch/project_465000000/overnight/runs/abcde/stages/corpus
export CXI_FORK_SAFE=1
export CXI_FORK_SAFE_HP=1
export FI_CXI_DISABLE_CQ_HUGETLB=1
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export NCCL_NET_GDR_LEVEL=3
export NCCL_SOCKET_IFNAME=hsn
export OMP_NUM_THREADS=8
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
exec /home/me/venv/bin/python /scratch/project_465000000/overnight/runs/abcde/code/toolkit/overnight_job.py work /scratch/project_465000000/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/spec.json
