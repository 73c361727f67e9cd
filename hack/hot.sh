#!/bin/bash
# Writes src/hot.ld, which has the linker put side by side the functions that the usual commands execute: the kernel then
# maps fewer pages of the program, and each command has less memory. Needs root, cgroups of its own and minutes, as
# every instruction is looked at. What the list lacks or has too much costs a page, and breaks nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d "${TMPDIR:-/tmp}/vessel-hot.XXXXXX")
# A command that fails under the steps leaves its container.
trap '[ ! -e "$dir/state/hot" ] || "$vessel" --root "$dir/state" delete --force hot; rm -rf "$dir"' EXIT
CARGO_PROFILE_RELEASE_STRIP=false cargo build --release --target-dir target/hot
vessel=$(echo target/hot/*/release/vessel)
nm -S --defined-only "$vessel" >"$dir/symbols"
gcc -O2 -Wall -o "$dir/hot" hack/hot.c

mkdir -p "$dir/bundle/rootfs/bin" "$dir/sleeper"
cp "$(command -v busybox)" "$dir/bundle/rootfs/bin/busybox"
"$vessel" spec --bundle "$dir/bundle"
config() { # config PROGRAM ARGUMENT
	jq --arg root "$dir/bundle/rootfs" '.process.terminal = false | .root.path = $root | .process.args = $ARGS.positional' \
		"$dir/bundle/config.json" --args "$@"
}
config /bin/busybox sleep 1000 >"$dir/sleeper/config.json"
config /bin/busybox true >"$dir/config" && mv "$dir/config" "$dir/bundle/config.json"

hot() { "$dir/hot" "$vessel" "$dir/symbols" "$vessel" --root "$dir/state" "$@" >>"$dir/list"; }
hot run --bundle "$dir/bundle" hot
hot create --bundle "$dir/bundle" hot
# Its init ended with the steps.
"$vessel" --root "$dir/state" delete --force hot
"$vessel" --root "$dir/state" create --bundle "$dir/bundle" hot </dev/null >/dev/null
hot state hot
hot start hot
hot delete --force hot
"$vessel" --root "$dir/state" run --detach --bundle "$dir/sleeper" hot </dev/null >/dev/null
hot exec hot /bin/busybox true
hot kill hot KILL
"$vessel" --root "$dir/state" delete --force hot

# The names without what the compiler adds to tell instances apart. A name that brings many cold instances goes last.
sort -u "$dir/list" | grep '^_ZN\|^_R' >"$dir/rust"
awk '{ print $4, $2 }' "$dir/symbols" | sort >"$dir/sizes"
{
	echo "/* Written by hack/hot.sh. */"
	echo "SECTIONS { .text.hot : {"
	echo "    *(.text.vessel_start .text.main)"
	# The C library has an object for a function or two.
	nm -A --defined-only "$(gcc -print-file-name=libc.a)" 2>/dev/null | awk '{ split($1, at, ":"); print $NF, at[2] }' | sort >"$dir/objects"
	# Those for one kind of processor are left out.
	sort -u "$dir/list" | grep -v '^_ZN\|^_R' | join - "$dir/objects" | awk '{ print $2 }' | sort -u | grep -v 'avx\|evex\|sse' |
		sed 's/.*/    *libc.a:&(.text .text.unlikely)/'
	awk 'NR == FNR { hot[$1] = 1; next } { print $1, $2, ($1 in hot) }' "$dir/rust" "$dir/sizes" |
		sed -E 's/^([^ ]*)17h[0-9a-f]{16}E[^ ]*/\117h*/; s/Cs[0-9A-Za-z]+_[0-9a-z_]+(\.[0-9]+)? /Cs* /; s/Cs[0-9A-Za-z]+_/Cs*_/g' |
		while read -r name size is; do echo "$name $((16#$size)) $is"; done |
		awk '{ all[$1] += $2; if ($3) hot[$1] += $2 }
			END { for (name in hot) print (hot[name] * 2 < all[name]), name }' | LC_ALL=C sort |
		sed 's/^. \(.*\)/    *(.text.\1)/'
	echo "} } INSERT BEFORE .text;"
} >src/hot.ld
