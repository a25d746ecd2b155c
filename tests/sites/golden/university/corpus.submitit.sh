#!/bin/bash

# Parameters
#SBATCH --chdir=/home/me/overnight/runs/abcde/stages/corpus
#SBATCH --cpus-per-task=4
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=16G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/home/me/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --time=240

# setup
export OVERNIGHT_LINK=0
. /home/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=4 --kill-on-bad-exit=1 /home/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
