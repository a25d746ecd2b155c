#!/bin/bash

# Parameters
#SBATCH --account=g123
#SBATCH --chdir=/capstor/scratch/cscs/me/overnight/runs/abcde/stages/cpt
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/capstor/scratch/cscs/me/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=normal
#SBATCH --requeue
#SBATCH --time=720

# setup
export OVERNIGHT_LINK=0
. /capstor/scratch/cscs/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 --environment=/capstor/scratch/cscs/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/container.toml /capstor/scratch/cscs/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
