#!/bin/bash -l
# An array of 100 members on PBS:  qsub -P ice -v RUN=$PWD/run deploy/pbs.sh
# 'cryotile submit' writes such a script for the missing tiles, with time and memory from the plan.
#PBS -N cryotile
#PBS -S /bin/bash
#PBS -J 0-99
#PBS -l select=1:ncpus=4:mem=8gb
#PBS -l walltime=4:00:00
export OMP_NUM_THREADS=1
# PBS tells a member its own index but not the range of the array.
export CRYOTILE_ARRAY=0-99
exec cryotile run "$RUN" --backend array
