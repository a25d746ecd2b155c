#!/bin/bash

# Parameters
#SBATCH --account=research
#SBATCH --chdir=/lustre/team/overnight/runs/abcde/stages/cpt
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --job-name=on-abcde-cpt-aaaaaa
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=0
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/lustre/team/overnight/runs/abcde/stages/cpt/logs/%j.batch.log
#SBATCH --partition=batch
#SBATCH --requeue
#SBATCH --time=240

# setup
export OVERNIGHT_LINK=0
. /lustre/team/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/host.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 '--container-image=nvcr.io#nvidia/pytorch:25.06-py3' --container-workdir=/lustre/team/overnight/runs/abcde/stages/cpt --container-mounts=/lustre/team/overnight:/lustre/team/overnight,/lustre/team/overnight/runs/abcde/code:/lustre/team/overnight/runs/abcde/code:ro --no-container-remap-root --no-container-mount-home /lustre/team/overnight/runs/abcde/stages/cpt/attempts/aaaaaa/node.sh
