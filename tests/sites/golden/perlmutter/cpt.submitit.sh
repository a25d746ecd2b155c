#!/bin/bash

# Parameters
#SBATCH --account=m0000
#SBATCH --chdir=/pscratch/sd/m/me/overnight/runs/abcde/stages/cpt
#SBATCH --constraint=gpu
#SBATCH --cpus-per-task=128
#SBATCH --gpus-per-node=4
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/pscratch/sd/m/me/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --qos=regular
#SBATCH --requeue
#SBATCH --time=720

# setup
export OVERNIGHT_LINK=0
. /pscratch/sd/m/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=128 --kill-on-bad-exit=1 /pscratch/sd/m/me/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
