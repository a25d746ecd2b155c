#!/bin/bash

# Parameters
#SBATCH --account=ehpc00
#SBATCH --chdir=/gpfs/scratch/ehpc00/overnight/runs/abcde/stages/corpus
#SBATCH --cpus-per-task=8
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/gpfs/scratch/ehpc00/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --partition=gpp
#SBATCH --qos=gp_ehpc
#SBATCH --requeue
#SBATCH --time=120

# setup
export OVERNIGHT_LINK=0
. /gpfs/scratch/ehpc00/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=8 --kill-on-bad-exit=1 /gpfs/scratch/ehpc00/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
