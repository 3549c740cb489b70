#!/usr/bin/env bash
# Installs the Debian packages that building, testing and linting need. Does nothing when all are there.
#   scripts/install_deps.sh [build|test|quickstart|bench]
# build: what the release binary needs. The others add to it: test (the default) everything to check a change; quickstart what
# fetches the model and makes the data; bench micro-benchmarks.
set -euo pipefail
build=(g++ cmake ninja-build pkg-config libdnnl-dev libhwy-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libfmt-dev
       libpcre2-dev libutf8proc-dev libssl-dev)
test=(libgtest-dev libgmock-dev librapidcheck-dev clang libclang-rt-14-dev libomp-14-dev clang-format-14 clang-tidy-14
      ccache mold python3 unzip)
quickstart=(python3 python3-pip ca-certificates)
bench=(libbenchmark-dev)
case "${1:-test}" in
  build) packages=("${build[@]}") ;;
  test) packages=("${build[@]}" "${bench[@]}" "${test[@]}") ;;
  quickstart) packages=("${build[@]}" "${quickstart[@]}") ;;
  bench) packages=("${build[@]}" "${bench[@]}") ;;
  *)
    echo "install_deps: expected build, test, quickstart or bench, not '$1'" >&2
    exit 2
    ;;
esac
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "install_deps: these packages are missing and need root to install: ${missing[*]}" >&2
  exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
