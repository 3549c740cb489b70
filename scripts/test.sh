#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests.
#   scripts/test.sh [--full]    --full: also lint, everything with Clang, sanitizers, and fuzzing
# FUZZ_SECONDS (default 20) is how long each fuzz target runs. A cold --full takes more than an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  "") full=false ;;
  --full) full=true ;;
  *) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
step() { printf '\n== %s (%s)\n' "$1" "$(date +%H:%M:%S)"; }

step "packages"
scripts/install_deps.sh
jobs=$(nproc)

# build PRESET [TARGET...]
build() {
  cmake --preset "$1" >/dev/null
  cmake --build --preset "$1" -j "$jobs" ${2:+--target "${@:2}"}
}

# One fuzz target; what it finds stays in build/fuzz/findings, and its output is shown.
fuzz() {
  local name
  name=$(basename "$1")
  "$1" -max_total_time="${FUZZ_SECONDS:-20}" -timeout=20 -rss_limit_mb=4096 -verbosity=0 \
    -artifact_prefix="build/fuzz/findings/$name-" >"build/fuzz/findings/$name.log" 2>&1 && echo "$name: nothing found" && return
  tail -n 60 "build/fuzz/findings/$name.log"
  echo "$name: FAILED"
  return 1
}
export -f fuzz

if $full; then
  step "lint"
  scripts/lint.sh
else
  step "layout: include directions, file sizes"
  python3 scripts/check_layout.py
fi

step "release build and tests"
build ci
ctest --preset ci -j "$jobs"

if $full; then
  step "everything with Clang; address and undefined-behaviour sanitizers, leaks"
  build fuzz
  kinds='/(bart|bert|bert_tags|bigbird|gemma3|llamatied|modernbert|qwen3moe|t5)( |$)'  # models that stand for the others
  ctest --preset fuzz -E '^parity\..*Training' -j "$jobs"
  ctest --preset fuzz -R "^parity\..*Training.*$kinds" -j "$jobs"

  step "fuzzing, ${FUZZ_SECONDS:-20} s a target"
  mkdir -p build/fuzz/findings
  printf '%s\0' build/fuzz/bin/fuzz_* | xargs -0 -n 1 -P "$jobs" bash -c 'fuzz "$0"'

  step "thread sanitizer, on everything that computes with threads, and these models"
  build tsan base_test kernels_test ops_test data_test train_test parity_test
  ctest --preset tsan -R "^(base|ops|data)\\.|^kernels\\.(Attention|Matmul|.*ManyTasks)|^train\\.[^/]*\$|^(train|parity)\\..*$kinds" -j "$jobs"
fi
step "all checks passed"
