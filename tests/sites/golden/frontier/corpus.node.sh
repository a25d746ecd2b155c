#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
cd /lustre/orion/abc123/scratch/me/overnight/runs/abcde/stages/corpus
export FI_CXI_RDZV_PROTO=alt_read
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
exec /home/me/venv/bin/python /lustre/orion/abc123/scratch/me/overnight/runs/abcde/code/toolkit/overnight_job.py work /lustre/orion/abc123/scratch/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/spec.json
