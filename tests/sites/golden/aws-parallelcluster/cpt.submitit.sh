#!/bin/bash

# Parameters
#SBATCH --chdir=/fsx/overnight/runs/abcde/stages/cpt
#SBATCH --gpus-per-node=8
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/fsx/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --time=1440

# setup
export OVERNIGHT_LINK=0
. /fsx/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 /fsx/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
