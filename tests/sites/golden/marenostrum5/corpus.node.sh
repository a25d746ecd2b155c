#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
cd /gpfs/scratch/ehpc00/overnight/runs/abcde/stages/corpus
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=8
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
exec /home/me/venv/bin/python /gpfs/scratch/ehpc00/overnight/runs/abcde/code/toolkit/overnight_job.py work /gpfs/scratch/ehpc00/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/spec.json
