#!/bin/bash

# Parameters
#SBATCH --account=ehpc00
#SBATCH --chdir=/gpfs/scratch/ehpc00/overnight/runs/abcde/stages/cpt
#SBATCH --cpus-per-task=80
#SBATCH --gres=gpu:4
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/gpfs/scratch/ehpc00/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=acc
#SBATCH --qos=acc_ehpc
#SBATCH --requeue
#SBATCH --time=1440

# setup
export OVERNIGHT_LINK=0
. /gpfs/scratch/ehpc00/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=80 --kill-on-bad-exit=1 /gpfs/scratch/ehpc00/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
