#!/bin/bash

# Parameters
#SBATCH --account=research
#SBATCH --chdir=/lustre/team/overnight/runs/abcde/stages/corpus
#SBATCH --job-name=on-abcde-corpus-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=0
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/lustre/team/overnight/runs/abcde/stages/corpus/logs/%j.batch.log
#SBATCH --partition=batch
#SBATCH --requeue
#SBATCH --time=60

# setup
export OVERNIGHT_LINK=0
. /lustre/team/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 /lustre/team/overnight/runs/abcde/stages/corpus/attempts/aaaaaa/node.sh
