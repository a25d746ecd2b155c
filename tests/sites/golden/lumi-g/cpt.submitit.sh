#!/bin/bash

# Parameters
#SBATCH --account=project_465000000
#SBATCH --chdir=/scratch/project_465000000/overnight/runs/abcde/stages/cpt
#SBATCH --cpus-per-task=56
#SBATCH --gpus-per-node=8
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/project_465000000/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=standard-g
#SBATCH --requeue
#SBATCH --time=2880

# setup
export OVERNIGHT_LINK=0
. /scratch/project_465000000/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=56 --kill-on-bad-exit=1 /scratch/project_465000000/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
