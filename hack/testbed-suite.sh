#!/bin/bash
# Inside the test bed, or the vm: runs the built integration tests against the built vessel.
#   hack/testbed-suite.sh DIR [ARG...]     DIR has integration, probe and vessel; the rest goes to the test program
# RUNTIME names another runtime of the guest.
set -euo pipefail
dir=$1
shift
# The host's files are slow to get at, and of a filesystem that cannot do all that a disk's can.
own=/var/lib/vessel-suite
mkdir -p "$own/tmp"
cp "$dir"/{integration,probe,vessel} "$own/"
export TMPDIR=$own/tmp PROBE=$own/probe
[ -n "${RUNTIME:-}" ] || export RUNTIME=$own/vessel
cd "$own"
# The session of the ordinary user comes a moment after boot.
for _ in $(seq 100); do [ ! -S "/run/user/$(id -u alice)/bus" ] || break; sleep 0.2; done
# Few processors, but much waiting.
exec ./integration --test-threads 3 "$@"
