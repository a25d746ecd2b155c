#!/bin/bash

# Parameters
#SBATCH ...

# setup
# A node where our files cannot be read ends every job at once and would take all that wait: this one goes to another node.
overnight_elsewhere() {
  local node=${SLURMD_NODENAME:-$(hostname -s)} nodes excluded tries=0
  trap '' TERM
  echo "overnight: $1 on $node: nothing is run" >&2
  nodes=$(sinfo -h -N -p "${SLURM_JOB_PARTITION:-}" -t idle,mixed,alloc,completing -o %N 2>/dev/null | sort -u | wc -l)
  if ((nodes > ${SLURM_JOB_NUM_NODES:-1} && ${SLURM_RESTART_COUNT:-0} < 3)) && scontrol requeue "$SLURM_JOB_ID"; then
    excluded=$(squeue -h -j "$SLURM_JOB_ID" -o %x 2>/dev/null) || excluded=
    case $excluded in '' | *null* | *N/A*) excluded=$node ;; *) excluded=$excluded,$node ;; esac
    until scontrol update "jobid=$SLURM_JOB_ID" "excnodelist=$excluded" || ((++tries == 10)); do sleep 0.5; done
  fi
  exit 74
}
export OVERNIGHT_LINK=0
. WORKSPACE/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh || overnight_elsewhere 'host.sh cannot be read'

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=4 --kill-on-bad-exit=1 WORKSPACE/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
