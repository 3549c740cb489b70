#!/usr/bin/env bash
# Makes the package-notes data set from Debian's package descriptions; `--help` says more.
#   scripts/make_package_notes.sh OUTPUT [--rows 1024] [--dev 100] [--test 200] [--languages en,fr,de,zh_CN] [--refresh]
set -euo pipefail
if ! command -v python3 >/dev/null; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "make_package_notes: python3 is missing and needs root to install: apt-get install python3" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 >/dev/null
fi
exec python3 "$(dirname "$0")/make_package_notes.py" "$@"
