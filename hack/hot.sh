#!/bin/bash
# Writes src/hot.ld, which has the linker put side by side the functions that the usual commands execute: the kernel then
# maps fewer pages of the program, and each command has less memory. Needs root, cgroups of its own and minutes, as
# every instruction is looked at. What the list lacks or has too much costs a page, and breaks nothing.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
dir=$(mktemp -d "${TMPDIR:-/tmp}/vessel-hot.XXXXXX")
# A command that fails under the steps leaves its container.
trap '[ ! -e "$dir/state/hot" ] || "$vessel" --root "$dir/state" delete --force hot; rm -rf "$dir"' EXIT
VESSEL_SYMBOLS=1 cargo build --release --target-dir target/hot
vessel=$(echo target/hot/*/release/vessel)
nm -S --defined-only "$vessel" >"$dir/symbols"
gcc -O2 -Wall -o "$dir/hot" hack/hot.c

mkdir -p "$dir/bundle/rootfs/bin" "$dir/sleeper" "$dir/filtered"
cp "$(command -v busybox)" "$dir/bundle/rootfs/bin/busybox"
"$vessel" spec --bundle "$dir/bundle"
config() { # config PROGRAM ARGUMENT
	jq --arg root "$dir/bundle/rootfs" '.process.terminal = false | .root.path = $root | .process.args = $ARGS.positional' \
		"$dir/bundle/config.json" --args "$@"
}
config /bin/busybox sleep 1000 >"$dir/sleeper/config.json"
config /bin/busybox true >"$dir/config" && mv "$dir/config" "$dir/bundle/config.json"
# As those of engines: all names that there are, some by their arguments.
echo '#include <sys/syscall.h>' | gcc -E -dM - | sed -n 's/^#define __NR_\([a-z0-9_]*\) .*/\1/p' |
	jq --raw-input . | jq --slurp --slurpfile config "$dir/bundle/config.json" '(. - ["clone", "clone3", "personality", "socket"]) as $names |
	def rule($name; $arg): {names: [$name], action: "SCMP_ACT_ALLOW", args: [$arg]};
	$config[0] | .linux.seccomp = {defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 1,
		architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], syscalls: [
		{names: $names, action: "SCMP_ACT_ALLOW"},
		rule("personality"; {index: 0, value: 0, op: "SCMP_CMP_EQ"}), rule("personality"; {index: 0, value: 8, op: "SCMP_CMP_EQ"}),
		rule("socket"; {index: 0, value: 40, op: "SCMP_CMP_NE"}),
		rule("clone"; {index: 0, value: 2114060288, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ"}),
		{names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38}
	]}' >"$dir/filtered/config.json"

# view COMMAND...: with the cgroups of $cgroups: those of the machine, or v2 alone.
view() {
	[ "$cgroups" = v2 ] || { "$@"; return; }
	unshare --mount sh -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"' sh "$@"
}
# hot NAME ARGUMENT...: the functions that a command executes, into a list of that name.
hot() { view "$dir/hot" "$vessel" "$dir/symbols" "$vessel" --root "$dir/state" "${@:2}" >>"$dir/list.$1"; }
vessel() { view "$vessel" --root "$dir/state" "$@" </dev/null >/dev/null; }
for cgroups in $([ -e /sys/fs/cgroup/cgroup.controllers ] && echo v2 || echo own v2); do
	hot run run --bundle "$dir/bundle" hot
	hot seccomp run --bundle "$dir/filtered" hot
	hot create create --bundle "$dir/bundle" hot
	# Its init ended with the steps.
	vessel delete --force hot
	vessel create --bundle "$dir/bundle" hot
	hot state state hot
	hot start start hot
	hot delete delete --force hot
	vessel run --detach --bundle "$dir/sleeper" hot
	hot exec exec hot /bin/busybox true
	hot kill kill hot KILL
	vessel delete --force hot
done

# Where a function of C is from: an archive has an object for a function or two.
archives() {
	for name in libc.a libgcc_eh.a libseccomp.a; do gcc -print-file-name="$name"; done
	echo "$(dirname "$(gcc -print-file-name=libc.a)")"/libm-*.a
}
archives | xargs nm -A --defined-only 2>/dev/null |
	awk '$2 ~ /^[tTwWi]$/ { n = split($1, at, ":"); sub(".*/", "", at[1]); sub("-.*", "-*.a", at[1]); print $NF, at[1] ":" at[2] }' |
	sort -u -k 1,1 >"$dir/objects"

# NAME, the commands that execute it, and what to match it by: for C its object; for Rust the name without what differs
# from one build to the next.
awk '{ split(FILENAME, at, "list."); if (!seen[$1, at[2]]++) of[$1] = of[$1] " " at[2] } END { for (name in of) print name of[name] }' "$dir"/list.* |
	sort -k 1,1 >"$dir/executed"
awk 'NR == FNR { object[$1] = $2; next }
	$1 !~ /^_R/ && $1 in object {
		for (i = 2; i <= NF; i++) print "*" object[$1] "(.text .text.*)", $i, 0
	}' FS=' ' "$dir/objects" "$dir/executed" >"$dir/lines"
# The hash of a crate has its path and its compiler in it, and what a name repeats is counted by their length.
while read -r _ size _ name; do echo "$name $((16#$size))"; done < <(awk 'NF == 4 && $3 ~ /[tTwW]/' "$dir/symbols") | sort -u -k 1,1 |
	join -a 1 - "$dir/executed" | grep '^_R' |
	sed -E 's/^([^ .]*)[^ ]*/& \1*/; :c; s/^([^ ]* [^ ]*)Cs[0-9A-Za-z]+_/\1C*_/; tc; :b; s/^([^ ]* [^ ]*)B[0-9A-Za-z]+_/\1B*_/; tb' |
	# Where most of what the shorter name stands for is cold, the full one goes first.
	awk '{ name[NR] = $1; short[NR] = $2; all[$2] += $3; if (NF > 3) hot[$2] += $3; $1 = $2 = $3 = ""; of[NR] = $0 }
		END { for (n in name) if (of[n] ~ /[a-z]/) {
			count = split(of[n], command, " ")
			for (i = 1; i <= count; i++)
				if (hot[short[n]] * 2 < all[short[n]]) { print "*(.text*." name[n] ")", command[i], 0; print "*(.text*." short[n] ")", "rest", 1 }
				else print "*(.text*." short[n] ")", command[i], 0
		} }' >>"$dir/lines"
# What all commands execute goes first, then by how many and which do.
{
	echo "/* Written by hack/hot.sh. */"
	echo "SECTIONS { .text.hot : {"
	echo "    *(.text.vessel_start .text.__libc_start_main .text.main)"
	echo "    *crt*.o(.text .text.*)"
	sort -u "$dir/lines" | sed -E 's/^(.*\)) ([a-z]+) ([01])$/\1\t\2\t\3/' |
		awk -F '\t' '{ of[$1] = of[$1] " " $2; count[$1]++; last[$1] = $3 } END { for (line in of) print last[line] "\t" 99 - count[line] "\t" of[line] "\t    " line }' |
		sort | cut -f 4
	echo "} } INSERT BEFORE .text;"
} >src/hot.ld
