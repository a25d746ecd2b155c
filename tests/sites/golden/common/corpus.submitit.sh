#!/bin/bash

# Parameters
#SBATCH ...

# setup
export OVERNIGHT_LINK=0
. WORKSPACE/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=4 --kill-on-bad-exit=1 WORKSPACE/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
