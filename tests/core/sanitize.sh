#!/bin/sh
# The tests of the core under AddressSanitizer with UndefinedBehaviorSanitizer, then under ThreadSanitizer.
# usage: sanitize.sh [PYTHON] [address|thread]; needs GCC, and cmake, ninja and pybind11 in that Python's environment.
set -eu
python=${1:-python3}
python=$(command -v "$python")
case $python in /*) ;; *) python=$PWD/$python ;; esac
PATH=$(dirname "$python"):$PATH
cd "$(dirname "$0")/../.."
for sanitizer in ${2:-address thread}; do
  build=build/core-$sanitizer
  cmake -G Ninja -S . -B "$build" -D WGK_SANITIZE="$sanitizer" -D Python_EXECUTABLE="$python" >/dev/null
  cmake --build "$build"
  ctest --test-dir "$build" --output-on-failure
done
