#!/bin/bash
# Checks that a layer calls downward only (src/lib.rs has the table): each module may use itself, the layers below its
# own, and nothing else. Modules of one layer do not know each other.
set -euo pipefail
cd "$(dirname "$0")/../src"

# From the top. The modules of the last line may know each other.
layers=(
	"main"
	"cli"
	"container"
	"init"
	"rootfs cgroups security attrs namespaces idmap net rdt hooks console criu foreground seal"
	"spec sys error log timings"
)

rank() { # rank MODULE
	local i
	for i in "${!layers[@]}"; do
		[[ " ${layers[$i]} " == *" $1 "* ]] && { echo "$i"; return; }
	done
	echo "layers: $1 is in no layer (see hack/layers.sh)" >&2
	return 1
}

uses() { # prints FILE LINE MODULE for each module of the crate that a line of code names
	# shellcheck disable=SC2038
	find . -name '*.rs' | xargs awk '
		/^[ \t]*\/\// { next }
		{
			text = $0
			while (match(text, /crate::(\{[^}]*\}|[a-z_]+)/)) {
				names = substr(text, RSTART + 7, RLENGTH - 7)
				text = substr(text, RSTART + RLENGTH)
				gsub(/[{},]/, " ", names)
				count = split(names, list, " ")
				for (i = 1; i <= count; i++) { sub(/::.*/, "", list[i]); print FILENAME, FNR, list[i] }
			}
		}'
}

bottom=$((${#layers[@]} - 1))
faults=0
while read -r file line used; do
	module=${file#./}
	module=${module%%/*}
	module=${module%.rs}
	[ "$module" != lib ] && [ "$module" != "$used" ] || continue
	from=$(rank "$module")
	to=$(rank "$used")
	if [ "$from" -gt "$to" ] || { [ "$from" = "$to" ] && [ "$from" != "$bottom" ]; }; then
		echo "src/${file#./}:$line: $module must not use $used, which is no layer below it" >&2
		faults=$((faults + 1))
	fi
done < <(uses)
[ "$faults" = 0 ]
