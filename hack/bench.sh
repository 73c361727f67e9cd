#!/bin/bash
# Times runtimes side by side on one bundle (busybox, the default config, /bin/true), in interleaved rounds:
#
#     hack/bench.sh build/vessel crun runc          # needs root, hyperfine, jq and busybox-static
#
# Prints, for each case and runtime, the median in milliseconds and its ratio to the last runtime's. ROUNDS and RUNS
# change how often. Debian's crun refuses a host with cgroup v1 and v2 side by side.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
ROUNDS=${ROUNDS:-5} RUNS=${RUNS:-20}

dir=$(mktemp -d "${TMPDIR:-/tmp}/vessel-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/bundle/rootfs/bin"
cp "$(command -v busybox)" "$dir/bundle/rootfs/bin/busybox"
ln -s busybox "$dir/bundle/rootfs/bin/true"
"$1" spec --bundle "$dir/bundle"
jq '.process.terminal = false | .process.args = ["/bin/true"] | .ociVersion = "1.0.2"' "$dir/bundle/config.json" >"$dir/config"
mv "$dir/config" "$dir/bundle/config.json"

# The name of a container is the runtime's number: no two of them meet.
script() { # script CASE NUMBER RUNTIME
	local of="$3 --root $dir/state-$2"
	case $1 in
	run) echo "$of run --bundle $dir/bundle b$2" ;;
	create+start+delete) echo "$of create --bundle $dir/bundle b$2 && $of start b$2 && $of delete --force b$2" ;;
	exec) echo "$of exec b$2 /bin/true" ;;
	esac
}

for runtime in "$@"; do
	"$runtime" --root "$dir/state-0" run --bundle "$dir/bundle" b0 </dev/null || { echo "bench: $runtime cannot run the bundle" >&2; exit 1; }
done

for case in run create+start+delete exec; do
	i=0
	for runtime in "$@"; do
		i=$((i + 1))
		[ "$case" = exec ] || continue
		jq '.process.args = ["/bin/busybox", "sleep", "100000"]' "$dir/bundle/config.json" >"$dir/config"
		mkdir -p "$dir/sleeper" && ln -sfn ../bundle/rootfs "$dir/sleeper/rootfs" && mv "$dir/config" "$dir/sleeper/config.json"
		jq --arg root "$dir/bundle/rootfs" '.root.path = $root' "$dir/sleeper/config.json" >"$dir/config"
		mv "$dir/config" "$dir/sleeper/config.json"
		"$runtime" --root "$dir/state-$i" run --detach --bundle "$dir/sleeper" "b$i" </dev/null >/dev/null 2>&1
	done
	for round in $(seq "$ROUNDS"); do
		i=0
		for runtime in "$@"; do
			i=$((i + 1))
			hyperfine --warmup 2 --runs "$RUNS" --export-json "$dir/$case-$i-$round.json" --output null \
				"$(script "$case" "$i" "$runtime")" </dev/null >/dev/null 2>&1
		done
	done
	i=0
	for runtime in "$@"; do
		i=$((i + 1))
		[ "$case" = exec ] && "$runtime" --root "$dir/state-$i" delete --force "b$i"
		jq -s '[.[].results[0].times[]] | sort | .[length / 2 | floor] * 1000' "$dir/$case-$i"-*.json >"$dir/median-$i"
	done
	i=0
	for runtime in "$@"; do
		i=$((i + 1))
		printf '%-20s %-32s %8.1f ms  %5.2f\n' "$case" "$runtime" "$(cat "$dir/median-$i")" \
			"$(jq -n "$(cat "$dir/median-$i") / $(cat "$dir/median-$#")")"
	done
done
