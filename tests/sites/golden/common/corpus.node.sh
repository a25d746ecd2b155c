#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
# Fail closed: not without what host.sh does first and last. Another job's variables may be inherited.
if [ "${1:-}" != inside ] && [ "${OVERNIGHT_ENTERED:-}" != "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" ]; then
  echo "overnight: host.sh has not prepared job $SLURM_JOB_ID on $(hostname): nothing is run" >&2
  exit 74
fi
cd WORKSPACE/runs/abcde/stages/corpus
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=4
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
exec /home/me/venv/bin/python WORKSPACE/runs/abcde/code/toolkit/overnight_job.py work WORKSPACE/runs/abcde/stages/corpus/attempts/aaaaaa/spec.json
