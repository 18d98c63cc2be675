#!/bin/sh
# Trains the shipped `nuclei` package from nothing, in two parts, and writes it to models/nuclei:
#
#     CELLCOUNT_DATA=DATA KERAS_BACKEND=torch sh models/train_nuclei.sh [--set threads=2 ...]
#
# DATA is the folder that holds dsb2018_nuclei/. Further words go to both parts. A run that was stopped goes on where it was.
set -eu
cd "$(dirname "$0")/.."
cellcount train conf/train_nuclei.yaml "$@"
cellcount train conf/train_nuclei_touching.yaml "$@"
