#!/usr/bin/env bash
# Builds the opponents into a directory: those that go.mod pins (regctl, crane, oras), and distribution's registry.
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
# On its own: its dependencies would change what the others are built with.
GOBIN="$directory" CGO_ENABLED=0 go install -trimpath github.com/distribution/distribution/v3/cmd/registry@v3.1.2
