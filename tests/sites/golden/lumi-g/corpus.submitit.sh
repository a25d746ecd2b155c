#!/bin/bash

# Parameters
#SBATCH --account=project_465000000
#SBATCH --chdir=/scratch/project_465000000/overnight/runs/abcde/stages/corpus
#SBATCH --cpus-per-task=8
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=32G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/project_465000000/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --partition=small
#SBATCH --requeue
#SBATCH --time=240

# setup
export OVERNIGHT_LINK=0
. /scratch/project_465000000/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=8 --kill-on-bad-exit=1 /scratch/project_465000000/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
