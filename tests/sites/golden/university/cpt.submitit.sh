#!/bin/bash

# Parameters
#SBATCH --chdir=/home/me/overnight/runs/abcde/stages/cpt
#SBATCH --cpus-per-task=16
#SBATCH --gres=gpu:4
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=64G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/home/me/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --time=1440

# setup
export OVERNIGHT_LINK=0
. /home/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --kill-on-bad-exit=1 /home/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
