#!/usr/bin/env bash
# Checks what is under deploy/ with the code of those who will read it: Helm's templates and Kubernetes' types, Compose's
# loader, systemd's own check; and every ferry.yaml there with ferry.
#
#   tests/deploy/run.sh FERRY [update]    FERRY is the path of a built ferry binary; update renders deploy/kubernetes anew
#
# Needs Go 1.24 or later; without it says NOT RUN and succeeds. DEPLOY, if set, is the checker that is built already.
set -euo pipefail

ferry=$(realpath "${1:?usage: run.sh FERRY [update]}")
cd "$(dirname "$0")"
deploy=$(realpath ../../deploy)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go_is_new_enough() {
    command -v go >/dev/null || return 1
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    [ "$(printf 'go1.24\n%s\n' "$version" | sort -V | head -n 1)" = go1.24 ]
}

checker=${DEPLOY:-}
if [ -z "$checker" ]; then
    if ! go_is_new_enough; then
        echo "deploy: NOT RUN: checking it needs Go 1.24 or later (Debian: golang-go)"
        exit 0
    fi
    checker=$work/deploy
    CGO_ENABLED=0 go build -o "$checker" .
fi

mkdir "$work/out" "$work/out/secrets"
echo secret >"$work/out/secrets/hub"
"$checker" "$deploy" "$work/out" ${2:+"$2"}

checked=0
for file in "$work"/out/*.yaml "$deploy"/*/ferry.yaml "$deploy"/compose/ferry/ferry.yaml; do
    # That one is Kubernetes' own, with ours inside.
    [ "$file" != "$deploy/kubernetes/ferry.yaml" ] || continue
    "$ferry" config check --config "$file" >/dev/null
    checked=$((checked + 1))
done
[ "$checked" -ge 6 ]
echo "deploy: $checked configurations are right"

if command -v systemd-analyze >/dev/null; then
    mkdir "$work/units"
    for unit in "$deploy"/systemd/*.service "$deploy"/systemd/*.socket; do
        sed "s|/usr/local/bin/ferry|$ferry|" "$unit" >"$work/units/${unit##*/}"
    done
    complaints=$(systemd-analyze verify "$work"/units/* 2>&1 | grep -F "$work" || true)
    if [ -n "$complaints" ]; then
        echo "$complaints" >&2
        exit 1
    fi
    echo "deploy: systemd understands its units"
else
    echo "deploy: systemd is not here, its units are not checked"
fi
