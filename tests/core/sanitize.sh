#!/bin/sh
# The tests of the core under AddressSanitizer with UndefinedBehaviorSanitizer, then under ThreadSanitizer.
# usage: sanitize.sh [PYTHON] [address|thread]; needs GCC, and in that Python's environment cmake, ninja, pybind11 and
# pytest-xdist.
set -eu
python=${1:-python3}
python=$(command -v "$python")
case $python in /*) ;; *) python=$PWD/$python ;; esac
PATH=$(dirname "$python"):$PATH
cd "$(dirname "$0")/../.."

build_and_test() {
  build=build/core-$1
  cmake -G Ninja -S . -B "$build" -D WGK_SANITIZE="$1" -D Python_EXECUTABLE="$python" >/dev/null
  cmake --build "$build" --parallel "${MAX_JOBS:-2}"
  ctest --test-dir "$build" --output-on-failure
}

if [ -n "${2:-}" ]; then
  build_and_test "$2"
else
  # The tests of one take one core.
  build_and_test address &
  address=$!
  build_and_test thread
  wait "$address"
fi
