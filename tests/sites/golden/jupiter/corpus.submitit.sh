#!/bin/bash

# Parameters
#SBATCH --account=research
#SBATCH --chdir=/e/scratch/research/overnight/runs/abcde/stages/corpus
#SBATCH --gres=gpu:4
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/e/scratch/research/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --partition=booster
#SBATCH --requeue
#SBATCH --time=120

# setup
export OVERNIGHT_LINK=0
. /e/scratch/research/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 --cpu-bind=sockets /e/scratch/research/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
