#!/bin/bash

# Parameters
#SBATCH --account=g123
#SBATCH --chdir=/capstor/scratch/cscs/me/overnight/runs/abcde/stages/corpus
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/capstor/scratch/cscs/me/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --partition=normal
#SBATCH --requeue
#SBATCH --time=120

# setup
export OVERNIGHT_LINK=0
. /capstor/scratch/cscs/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 /capstor/scratch/cscs/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
