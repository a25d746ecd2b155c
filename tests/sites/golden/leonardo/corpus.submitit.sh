#!/bin/bash

# Parameters
#SBATCH --account=IscrC_research
#SBATCH --chdir=/leonardo_work/IscrC_research/overnight/runs/abcde/stages/corpus
#SBATCH --cpus-per-task=4
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=30000M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/leonardo_work/IscrC_research/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --partition=lrd_all_serial
#SBATCH --requeue
#SBATCH --time=240

# setup
export OVERNIGHT_LINK=0
. /leonardo_work/IscrC_research/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=4 --kill-on-bad-exit=1 /leonardo_work/IscrC_research/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
