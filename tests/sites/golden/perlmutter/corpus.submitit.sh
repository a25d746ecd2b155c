#!/bin/bash

# Parameters
#SBATCH --account=m0000
#SBATCH --chdir=/pscratch/sd/m/me/overnight/runs/abcde/stages/corpus
#SBATCH --constraint=cpu
#SBATCH --cpus-per-task=16
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/pscratch/sd/m/me/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --qos=regular
#SBATCH --requeue
#SBATCH --time=120

# setup
export OVERNIGHT_LINK=0
. /pscratch/sd/m/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=16 --kill-on-bad-exit=1 /pscratch/sd/m/me/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
