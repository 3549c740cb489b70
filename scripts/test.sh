#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests.
#   scripts/test.sh [--full]    --full: also formatting, sanitizers, a Clang build and fuzzing
# FUZZ_SECONDS (default 60) is how long each fuzz target runs.
set -euo pipefail
cd "$(dirname "$0")/.."
full=false
[ "${1:-}" = --full ] && full=true
step() { printf '\n== %s (%s)\n' "$1" "$(date +%H:%M:%S)"; }

step "packages"
scripts/install_deps.sh
jobs=$(nproc)

step "layout: include directions, file sizes"
python3 scripts/check_layout.py

step "release build and tests"
cmake --preset ci >/dev/null
cmake --build --preset ci -j "$jobs"
ctest --preset ci -j "$jobs"

if $full; then
  step "formatting"
  git ls-files 'src/*.h' 'src/*.cc' | xargs clang-format-14 --dry-run --Werror

  step "address and undefined-behaviour sanitizers"
  cmake --preset dev >/dev/null
  cmake --build --preset dev -j "$jobs"
  ctest --preset dev -j "$jobs"

  step "thread sanitizer"
  cmake --preset tsan >/dev/null
  cmake --build --preset tsan -j "$jobs" --target base_test kernels_test ops_test
  ctest --preset tsan -R '^(base|kernels|ops)\.' -j 1

  step "Clang build and fuzzing"
  cmake --preset fuzz >/dev/null
  cmake --build --preset fuzz -j "$jobs"
  for target in build/fuzz/bin/fuzz_*; do
    [ -x "$target" ] || continue
    echo "$(basename "$target"), ${FUZZ_SECONDS:-60} s"
    "$target" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=20 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=0
  done
fi
step "all checks passed"
