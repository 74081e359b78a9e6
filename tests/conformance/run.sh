#!/usr/bin/env bash
# Runs the official OCI conformance suite, at the commit that go.mod pins, against `ferry serve`.
#
#   tests/conformance/run.sh FERRY        FERRY is the path of a built ferry binary
#
# Needs Go 1.24; without it says NOT RUN and succeeds. CONFORMANCE, if set, is a suite that is built already.
# The suite exits 0 when it cannot even start, so what counts is its report: there, whole, and without a blemish.
set -euo pipefail

ferry=$(realpath "${1:?usage: run.sh FERRY}")
cd "$(dirname "$0")"

go_is_new_enough() {
    command -v go >/dev/null || return 1
    local version
    # Without GOTOOLCHAIN=local an old Go would fetch a new one from the network.
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    [ "$(printf 'go1.24\n%s\n' "$version" | sort -V | head -n 1)" = go1.24 ]
}

work=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "conformance: FAILED: $*" >&2
    exit 1
}

suite=${CONFORMANCE:-}
if [ -z "$suite" ]; then
    if ! go_is_new_enough; then
        echo "conformance: NOT RUN: the suite needs Go 1.24 or later (Debian: golang-go)"
        exit 0
    fi
    suite=$work/conformance
    CGO_ENABLED=0 go build -o "$suite" github.com/opencontainers/distribution-spec/conformance
fi

"$ferry" serve --storage "$work/storage" --listen 127.0.0.1:0 >"$work/serve.out" 2>"$work/serve.err" &
server=$!

# Succeeds once the server has said where it listens and answers there.
answers() {
    address=$(sed -n 's|.*http://\([0-9.:]*\).*|\1|p' "$work/serve.out" | head -n 1)
    [ -n "$address" ] || return 1
    (
        exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
        printf 'GET /v2/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$address" >&3
        read -r -t 5 line <&3
        [[ $line == *" 200 "* ]]
    ) 2>/dev/null
}

tries=0
until answers; do
    if ! kill -0 "$server" 2>/dev/null || [ $((tries += 1)) -gt 300 ]; then
        cat "$work/serve.err" >&2
        fail "ferry serve does not answer"
    fi
    sleep 0.1
done

# All that is in the suite but one: sparse manifests, whose blobs a registry may refuse to miss, as ferry does. The
# last four belong to the next version of the specification.
status=0
env OCI_REGISTRY="$address" OCI_TLS=disabled OCI_VERSION=1.1 OCI_LOG=warn OCI_RESULTS_DIR="$work/results" \
    OCI_REPO1=conformance/repo1 OCI_REPO2=conformance/repo2 \
    OCI_API_BLOBS_UPLOAD_CANCEL=true OCI_API_BLOBS_DIGEST_HEADER=true \
    OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_API_MANIFESTS_TAG_PARAM=true \
    "$suite" >"$work/suite.out" 2>"$work/suite.err" || status=$?

report=$work/results/results.yaml
blame() {
    cat "$work/suite.err" >&2
    grep -B 2 -A 4 -E ': (FAIL|Error|Skip)$' "$work/suite.out" | head -n 200 >&2 || true
    fail "$*"
}
count() {
    sed -n "/^OCI Conformance Result/,\$ s/^  $1\.*: *\([0-9]*\)\$/\1/p" "$work/suite.out"
}

[ -s "$report" ] || blame "the suite has written no report"
[ "$status" -eq 0 ] || blame "the suite ended with status $status"
grep -qx 'OCI Conformance Result: Pass' "$work/suite.out" || blame "the overall result is not Pass"
[ "$(sed -n 's/^  version: //p' "$report" | tr -d '"')" = 1.1 ] || blame "the report is not of version 1.1"

# The results are the maps `apis` and `data` at the top level; `config` has maps of the same names further in.
categories=$(awk '/^[a-z]+:$/ { part = $1; next } part != "config:" && /^  / { print part substr($0, 2) }' "$report")
unclean=$(grep -v ': Pass$' <<<"$categories" | grep -vx 'data: Sparse Manifests: Disabled' || true)
[ -z "$unclean" ] || blame "not clean: ${unclean//$'\n'/; }"
for part in apis data; do
    [ "$(grep -c "^$part: .*: Pass\$" <<<"$categories")" -ge 20 ] || blame "the report lacks categories of $part"
done

passed=$(count Pass) failed=$(count FAIL) errors=$(count Error) skipped=$(count Skip) disabled=$(count Disabled)
[ "$failed-$errors-$skipped-$disabled" = 0-0-0-0 ] ||
    blame "$failed failed, $errors errors, $skipped skipped, $disabled disabled"
[ "$passed" -ge 900 ] || blame "only $passed tests ran"
echo "conformance: $passed tests passed in $(wc -l <<<"$categories") categories, 0 failed, 0 skipped, 0 disabled"
