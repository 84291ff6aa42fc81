#!/bin/bash -l
# An array of 100 members on Slurm:  sbatch --account=ice --export=ALL,RUN=$PWD/run deploy/slurm.sh
# 'cryotile submit' writes such a script for the missing tiles, with time and memory from the plan.
#SBATCH --job-name=cryotile
#SBATCH --array=0-99
#SBATCH --ntasks=1 --cpus-per-task=4
#SBATCH --time=4:00:00 --mem-per-cpu=2G
#SBATCH --signal=B:TERM@60
export OMP_NUM_THREADS=1
exec cryotile run "$RUN" --backend array
