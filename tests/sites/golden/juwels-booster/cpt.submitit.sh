#!/bin/bash

# Parameters
#SBATCH --account=research
#SBATCH --chdir=/p/scratch/research/overnight/runs/abcde/stages/cpt
#SBATCH --disable-dcgm
#SBATCH --gres=gpu:4
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/p/scratch/research/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=booster
#SBATCH --requeue
#SBATCH --time=120

# setup
export OVERNIGHT_LINK=0
. /p/scratch/research/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 --cpu-bind=sockets /p/scratch/research/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
