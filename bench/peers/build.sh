#!/usr/bin/env bash
# Builds the opponents that go.mod pins (regctl, crane, oras) into a directory.
#
#   bench/peers/build.sh DIR
set -euo pipefail

directory=$(realpath -m "${1:?usage: build.sh DIR}")
cd "$(dirname "$0")"
mkdir -p "$directory"
for package in github.com/regclient/regclient/cmd/regctl github.com/google/go-containerregistry/cmd/crane \
    oras.land/oras/cmd/oras; do
    CGO_ENABLED=0 go build -trimpath -o "$directory/" "$package"
done
