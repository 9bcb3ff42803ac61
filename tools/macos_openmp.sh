#!/usr/bin/env bash
# OpenMP for the wheels of macOS: LLVM's runtime 11.1.0 as conda-forge built it, into the folder that is named.
# Apple's compiler comes without one, Homebrew's is for the newest macOS only, and two of version 12 or later in one
# process (PyTorch brings its own) crash; scikit-learn ships this one, too.
set -euo pipefail
folder=$1
if [[ $(uname -m) == arm64 ]]; then
    package=osx-arm64/llvm-openmp-11.1.0-hf3c4609_1.tar.bz2
    sha256=29763e493e46801c416f2e75f20e9183719bde3b727d8983b1917a480b4076fe
else
    package=osx-64/llvm-openmp-11.1.0-hda6cdc1_1.tar.bz2
    sha256=1ebfeee2af90bcedf6b39c7290244e2aec0bda01ecf81b0d8d78ed405480c21c
fi
archive=$(mktemp)
curl --fail --silent --show-error --location --output "$archive" "https://conda.anaconda.org/conda-forge/$package"
echo "$sha256  $archive" | shasum -a 256 --check
mkdir -p "$folder"
tar -xjf "$archive" -C "$folder"
