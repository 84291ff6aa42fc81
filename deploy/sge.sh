#!/bin/bash -l
# An array of 100 members on Grid Engine:  qsub -P ice -v RUN=$PWD/run deploy/sge.sh
# 'cryotile submit' writes such a script for the missing tiles, with time and memory from the plan.
#$ -N cryotile
#$ -S /bin/bash
#$ -cwd
#$ -t 1-100
#$ -pe smp 4
#$ -l h_rt=4:00:00
export OMP_NUM_THREADS=1
exec cryotile run "$RUN" --backend array
