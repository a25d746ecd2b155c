#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
cd WORKSPACE/runs/abcde/stages/corpus
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=4
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
exec /home/me/venv/bin/python WORKSPACE/runs/abcde/code/toolkit/overnight_job.py work WORKSPACE/runs/abcde/stages/corpus/attempts/aaaaaa/spec.json
