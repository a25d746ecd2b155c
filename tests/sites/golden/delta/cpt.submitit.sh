#!/bin/bash

# Parameters
#SBATCH --account=bbka-delta-gpu
#SBATCH --chdir=/work/hdd/bbka/me/overnight/runs/abcde/stages/cpt
#SBATCH --constraint=scratch
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=4
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=208G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/work/hdd/bbka/me/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=gpuA100x4
#SBATCH --requeue
#SBATCH --time=1440

# setup
export OVERNIGHT_LINK=0
. /work/hdd/bbka/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=64 --kill-on-bad-exit=1 /work/hdd/bbka/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
