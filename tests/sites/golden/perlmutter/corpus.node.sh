#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
cd /pscratch/sd/m/me/overnight/runs/abcde/stages/corpus
export GLOO_SOCKET_IFNAME=hsn0
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export NCCL_SOCKET_IFNAME=hsn
export OMP_NUM_THREADS=16
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
exec /home/me/venv/bin/python /pscratch/sd/m/me/overnight/runs/abcde/code/toolkit/overnight_job.py work /pscratch/sd/m/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/spec.json
