#!/usr/bin/env bash
# Runs the official OCI conformance suite, at the commit that go.mod pins, against `ferry serve`: all of it against a
# registry, and what pulls against a mirror of one.
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
servers=()
finish() {
    local server
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    done
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

# Succeeds once the server NAME has said where it listens and answers there.
answers() {
    address=$(sed -n 's|.*http://\([0-9.:]*\).*|\1|p' "$work/$1.out" | head -n 1)
    [ -n "$address" ] || return 1
    (
        exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
        printf 'GET /v2/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$address" >&3
        read -r -t 5 line <&3
        [[ $line == *" 200 "* ]]
    ) 2>/dev/null
}

# Starts a server, NAME and further arguments, and leaves its address in `address`.
start() {
    local name=$1 tries=0 server
    : >"$work/$name.out"
    "$ferry" serve --storage "$work/$name" --listen 127.0.0.1:0 "${@:2}" >"$work/$name.out" 2>"$work/$name.err" &
    server=$!
    servers+=("$server")
    until answers "$name"; do
        if ! kill -0 "$server" 2>/dev/null || [ $((tries += 1)) -gt 300 ]; then
            cat "$work/$name.err" >&2
            fail "ferry serve does not answer"
        fi
        sleep 0.1
    done
}

# Runs the suite against `address`, with the given variables; its output goes to NAME.out.
run_suite() {
    local name=$1 status=0
    env OCI_REGISTRY="$address" OCI_TLS=disabled OCI_VERSION=1.1 OCI_LOG=warn OCI_RESULTS_DIR="$work/$name.results" \
        OCI_REPO1=conformance/repo1 OCI_REPO2=conformance/repo2 "${@:2}" \
        "$suite" >"$work/$name.suite" 2>"$work/$name.errors" || status=$?
    grep -qx 'OCI Conformance Result: Pass' "$work/$name.suite" || blame "$name" "the overall result is not Pass"
    # Of a registry that is only read this version of the suite prints a report, and crashes when it writes another.
    [ "$name" != mirror ] || return 0
    [ -s "$work/$name.results/results.yaml" ] || blame "$name" "the suite has written no report"
    [ "$status" -eq 0 ] || blame "$name" "the suite ended with status $status"
    [ "$(sed -n 's/^  version: //p' "$work/$name.results/results.yaml" | tr -d '"')" = 1.1 ] ||
        blame "$name" "the report is not of version 1.1"
}
blame() {
    cat "$work/$1.errors" >&2
    grep -B 2 -A 4 -E ': (FAIL|Error|Skip)$' "$work/$1.suite" | head -n 200 >&2 || true
    fail "$1: ${*:2}"
}
count() {
    sed -n "/^OCI Conformance Result/,\$ s/^  $2\.*: *\([0-9]*\)\$/\1/p" "$work/$1.suite"
}
# What became of each category: the maps `apis` and `data` at the top level; `config` has maps of the same names further in.
categories() {
    awk '/^[a-z]+:$/ { part = $1; next } part != "config:" && /^  / { print part substr($0, 2) }' "$work/$1.results/results.yaml"
}

# All that is in the suite but one: sparse manifests, whose blobs a registry may refuse to miss, as ferry does. The
# last four belong to the next version of the specification.
start registry
run_suite registry OCI_API_BLOBS_UPLOAD_CANCEL=true OCI_API_BLOBS_DIGEST_HEADER=true \
    OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_API_MANIFESTS_TAG_PARAM=true
unclean=$(categories registry | grep -v ': Pass$' | grep -vx 'data: Sparse Manifests: Disabled' || true)
[ -z "$unclean" ] || blame registry "not clean: ${unclean//$'\n'/; }"
for part in apis data; do
    [ "$(categories registry | grep -c "^$part: .*: Pass\$")" -ge 20 ] || blame registry "the report lacks categories of $part"
done
failed=$(count registry FAIL) errors=$(count registry Error) skipped=$(count registry Skip) disabled=$(count registry Disabled)
[ "$failed-$errors-$skipped-$disabled" = 0-0-0-0 ] ||
    blame registry "$failed failed, $errors errors, $skipped skipped, $disabled disabled"
passed=$(count registry Pass)
[ "$passed" -ge 900 ] || blame registry "only $passed tests ran"
echo "conformance: $passed tests passed in $(categories registry | wc -l) categories, 0 failed, 0 skipped, 0 disabled"

# What the suite pushes to an upstream and may not delete there is then pulled through a mirror.
kept=(OCI_API_BLOBS_DELETE=false OCI_API_MANIFESTS_DELETE=false OCI_API_TAGS_DELETE=false)
start upstream
upstream=$address
run_suite upstream "${kept[@]}"
repository=http://$upstream/v2/conformance/repo1
tags=$(curl -sf "$repository/tags/list" | sed 's/.*\[//' | grep -o '"[^"]*"' | tr -d '"')
digests=$(for tag in $tags; do
    curl -sfI "$repository/manifests/$tag" | tr -d '\r' | sed -n 's/^docker-content-digest: //p'
    curl -sf "$repository/manifests/$tag" | grep -oE 'sha(256|512):[0-9a-f]{64,128}'
done | sort -u)
those_at() { for digest in $digests; do curl -sfI -o /dev/null "$repository/$1/$digest" && echo "$digest"; done; }
manifests=$(those_at manifests || true)
blobs=$(those_at blobs || true)
subjects=$(for digest in $digests; do curl -sf "$repository/referrers/$digest" | grep -q '"digest"' && echo "$digest"; done || true)
if [ "$(wc -w <<<"$tags")" -lt 10 ] || [ "$(wc -w <<<"$manifests")" -lt 20 ] || [ "$(wc -w <<<"$blobs")" -lt 10 ] || [ -z "$subjects" ]; then
    fail "the suite left too little at the upstream: $tags; $manifests; $blobs; $subjects"
fi

# Transparent: the suite names repositories as the upstream does.
printf 'serve:\n  mirror: {upstreams: ["%s"], default: "%s"}\n' "$upstream" "$upstream" >"$work/mirror.yaml"
start mirror --config "$work/mirror.yaml"
# Without OCI_API_MANIFESTS_DIGEST_HEADER: of manifests that it has not pushed itself, the suite does not see the header.
run_suite mirror "${kept[@]}" OCI_API_PUSH=false OCI_API_BLOBS_MOUNT_ANONYMOUS=false OCI_API_BLOBS_DIGEST_HEADER=true \
    OCI_RO_DATA_TAGS="${tags//$'\n'/ }" OCI_RO_DATA_MANIFESTS="${manifests//$'\n'/ }" \
    OCI_RO_DATA_BLOBS="${blobs//$'\n'/ }" OCI_RO_DATA_REFERRERS="${subjects//$'\n'/ }"
failed=$(count mirror FAIL) errors=$(count mirror Error) skipped=$(count mirror Skip) passed=$(count mirror Pass)
[ "$failed-$errors-$skipped" = 0-0-0 ] || blame mirror "$failed failed, $errors errors, $skipped skipped"
[ "$passed" -ge 100 ] || blame mirror "only $passed tests ran"
for part in "Tag listing" "Blob get" "Blob head" "Manifest get by digest" "Manifest get by tag" "Manifest head by digest" "Manifest head by tag" Referrers; do
    grep -qE "^  $part\.+: +Pass$" "$work/mirror.suite" || blame mirror "$part did not run"
done
echo "conformance: $passed tests passed through a mirror, 0 failed, 0 skipped"
