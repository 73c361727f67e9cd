#!/bin/bash
# Installs, through apt, what building and testing need and the machine lacks. Does nothing where all is there.
#   hack/needs.sh [COMMAND...]     commands that come in packages of their names are installed, too
set -euo pipefail

missing=()
need() { # need PACKAGE TEST...: the package, unless the test succeeds
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}
triple=$(cc -dumpmachine 2>/dev/null || echo "$(uname -m)-linux-gnu")
need gcc command -v cc
need libc6-dev test -e /usr/include/stdlib.h
need libseccomp-dev test -e "/usr/lib/$triple/libseccomp.a"
need busybox-static busybox true
need procps command -v ps
need util-linux command -v setpriv
for command in "$@"; do
	need "$command" command -v "$command"
done
[ ${#missing[@]} -gt 0 ] || exit 0

[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
	echo "these packages are needed: ${missing[*]} (as root on Debian, they are installed by themselves)" >&2
	exit 1
}
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
