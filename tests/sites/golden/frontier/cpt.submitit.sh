#!/bin/bash

# Parameters
#SBATCH --account=abc123
#SBATCH --chdir=/lustre/orion/abc123/scratch/me/overnight/runs/abcde/stages/cpt
#SBATCH --cpus-per-task=56
#SBATCH --gpus-per-node=8
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --network=disable_rdzv_get
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/lustre/orion/abc123/scratch/me/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=batch
#SBATCH --requeue
#SBATCH --time=120

# setup
export OVERNIGHT_LINK=0
. /lustre/orion/abc123/scratch/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=56 --kill-on-bad-exit=1 /lustre/orion/abc123/scratch/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
