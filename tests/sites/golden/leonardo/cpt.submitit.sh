#!/bin/bash

# Parameters
#SBATCH --account=IscrC_research
#SBATCH --chdir=/leonardo_work/IscrC_research/overnight/runs/abcde/stages/cpt
#SBATCH --cpus-per-task=32
#SBATCH --gres=gpu:4
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/leonardo_work/IscrC_research/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=boost_usr_prod
#SBATCH --requeue
#SBATCH --time=1440

# setup
export OVERNIGHT_LINK=0
. /leonardo_work/IscrC_research/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=32 --kill-on-bad-exit=1 /leonardo_work/IscrC_research/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
