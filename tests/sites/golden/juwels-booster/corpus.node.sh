#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
cd /p/scratch/research/overnight/runs/abcde/stages/corpus
export GLOO_SOCKET_IFNAME=ib0
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export NCCL_SOCKET_IFNAME=ib0
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
exec /home/me/venv/bin/python /p/scratch/research/overnight/runs/abcde/code/toolkit/overnight_job.py work /p/scratch/research/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/spec.json
