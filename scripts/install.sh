#!/bin/sh
# Installs a release of ferry for this user: FERRY_VERSION (the newest that this script knows), into FERRY_BIN (~/.local/bin), from
# FERRY_DOWNLOAD (the releases on GitHub, or a mirror of them). FERRY_SHA256 is the checksum that the archive must have; without
# it, the one in SHA256SUMS beside the archive counts.
FERRY_VERSION=${FERRY_VERSION:-0.1.0}
FERRY_BIN=${FERRY_BIN:-$HOME/.local/bin}
# ferry: install (these lines are the same in every template)
set -eu
case "$(uname -s) $(uname -m)" in
  "Linux x86_64") target=x86_64-unknown-linux-musl ;;
  "Linux aarch64") target=aarch64-unknown-linux-musl ;;
  *) echo "There is no release of ferry for $(uname -s) $(uname -m); see docs/en/install.md" >&2; exit 1 ;;
esac
archive=ferry-$FERRY_VERSION-$target.tar.gz
from=${FERRY_DOWNLOAD:-https://github.com/ferry-mirror/ferry/releases/download}/v$FERRY_VERSION
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
curl -fsSL --retry 5 -o "$work/$archive" "$from/$archive"
wanted=${FERRY_SHA256:-}
if [ -z "$wanted" ]; then
  curl -fsSL --retry 5 -o "$work/SHA256SUMS" "$from/SHA256SUMS"
  wanted=$(awk -v name="$archive" '$2 == name { print $1 }' "$work/SHA256SUMS")
fi
found=$(sha256sum "$work/$archive" | cut -d ' ' -f 1)
if [ "$found" != "$wanted" ]; then
  echo "$from/$archive is not what was released: its SHA-256 is $found, not ${wanted:-in SHA256SUMS}" >&2
  exit 1
fi
tar -xzf "$work/$archive" -C "$work" "${archive%.tar.gz}/ferry"
mkdir -p "${FERRY_BIN:-.ferry-bin}"
mv "$work/${archive%.tar.gz}/ferry" "${FERRY_BIN:-.ferry-bin}/ferry"
rm -rf "$work"
trap - EXIT
"${FERRY_BIN:-.ferry-bin}/ferry" --version
# ferry: end
case ":$PATH:" in
  *":$FERRY_BIN:"*) ;;
  *) echo "Add $FERRY_BIN to PATH to call it as ferry." ;;
esac
