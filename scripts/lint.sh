#!/usr/bin/env bash
# Layout, formatting, headers that compile alone, and clang-tidy. Builds nothing.
#   scripts/lint.sh [FILE...]    FILE: only these (default: every source file)
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then
  files=("$@")
else  # tests/lint breaks the rules on purpose
  mapfile -t files < <(find src tests bench examples -path tests/lint -prune -o -name '*.h' -print -o -name '*.cc' -print | sort)
fi
failed=0
# lint TITLE PATTERN COMMAND...: the command over the files that match, a few to a process, all processors busy.
lint() {
  local title=$1 pattern=$2 found
  shift 2
  found=$(printf '%s\n' "${files[@]}" | grep -P "$pattern") || return 0
  echo "lint: $title, $(wc -l <<<"$found") files"
  xargs -n 4 -P "$(nproc)" "$@" <<<"$found" 2> >(grep -vE '^[0-9]+ warnings? .*generated' >&2) || failed=1
}

# Those of the files that are headers which no .cc of their name includes first: the others compile alone with it.
lone_headers() {
  local file
  for file in "${files[@]}"; do
    [[ $file == src/*.h ]] || continue
    [ "$(grep -m 1 -h '^#include' "${file%.h}.cc" 2>/dev/null)" = "#include \"${file#src/}\"" ] || echo "$file"
  done
}

python3 scripts/check_layout.py || failed=1
lint "formatting" . clang-format-14 --dry-run --Werror
lint "headers that compile alone" "^($(lone_headers | paste -sd '|'))\$" clang++ -fsyntax-only -x c++ -std=c++20 -Isrc -Wall -Wextra -Wconversion \
  -DINSTRUCT_GOLDENS='""' -Werror -Wno-pragma-once-outside-header -Wno-missing-field-initializers
cmake --preset fuzz >/dev/null  # Clang's command lines: those of GCC have options that clang-tidy does not know
# Of all files those that are shipped; of named ones the tests too.
[ $# -gt 0 ] && tidied='^(src|tests)/.*\.cc$' || tidied='^src/.*(?<!_test)\.cc$'
lint "clang-tidy" "$tidied" clang-tidy-14 --quiet -p build/fuzz
[ $failed -eq 0 ] && echo "lint: ${#files[@]} files in order"
exit $failed
