#!/bin/bash
# Started once on every node of the job by the executor's srun: the work of one stage.
set -eu
# Fail closed: not without what host.sh does first and last. Another job's variables may be inherited.
if [ "${1:-}" != inside ] && [ "${OVERNIGHT_ENTERED:-}" != "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" ]; then
  echo "overnight: host.sh has not prepared job $SLURM_JOB_ID on $(hostname): nothing is run" >&2
  exit 74
fi
cd WORKSPACE/runs/abcde/stages/cpt
export HF_DATASETS_OFFLINE=1
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=4
export TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_OFFLINE=1
export OVERNIGHT_WANTS_GPUS=1
# NCCL's own reason stands in the log, not only its class of error.
export NCCL_DEBUG="${NCCL_DEBUG-WARN}"
# The elastic agent answers TERM by killing its workers 30 s later, and ends with 1 even when all of them have saved and
# left in time; USR2 kills it at once and leaves them running. So it is deaf to both here: the workers, which Slurm
# signals themselves, save and end, and then it ends with their success.
trap '' TERM USR1 USR2
export PET_SIGNALS_TO_HANDLE=SIGINT,SIGHUP
overnight_is_host=0
[ "${SLURM_NODEID:-0}" -ne 0 ] || overnight_is_host=1
overnight_local=()
# The interface that the profile gives to gloo or NCCL is that of the rendezvous, too.
overnight_interface=${GLOO_SOCKET_IFNAME:-${NCCL_SOCKET_IFNAME:-}}
if [ -n "$overnight_interface" ]; then
  overnight_address=$(/home/me/venv/bin/python WORKSPACE/runs/abcde/code/toolkit/overnight_job.py address "$overnight_interface")
  [ -z "$overnight_address" ] || overnight_local=(--local-addr="$overnight_address")
fi
# is_host is said outright: left to itself an agent whose port is taken becomes a client of whoever sits there, and that
# may be another job's rendezvous. Restarts are Slurm's business (same job id, newest sound save), not the agent's.
exec /home/me/venv/bin/python -m torch.distributed.run \
  --nnodes=2 --nproc-per-node=4 --max-restarts=0 \
  --rdzv-backend=c10d --rdzv-endpoint="$OVERNIGHT_MASTER_ADDR:$OVERNIGHT_MASTER_PORT" \
  --rdzv-conf="is_host=$overnight_is_host" ${overnight_local[@]+"${overnight_local[@]}"} \
  --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
  WORKSPACE/runs/abcde/code/toolkit/overnight_job.py work WORKSPACE/runs/abcde/stages/cpt/attempts/aaaaaa/spec.json
