#!/bin/bash

# Parameters
#SBATCH ...

# setup
export OVERNIGHT_LINK=0
. WORKSPACE/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --kill-on-bad-exit=1 WORKSPACE/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
