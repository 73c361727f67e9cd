#!/bin/bash
# Makes a bundle with busybox, and takes a container of it through its life. Says what it does.
#   hack/demo.sh path/to/vessel
set -euo pipefail
vessel=$(realpath "$1")
dir=$(mktemp -d /tmp/vessel-demo.XXXXXX)
id=demo-$$
trap '"$vessel" --root "$dir/state" delete --force "$id" || true; rm -rf "$dir"' EXIT

exec 3>&1
show() {
	printf '\n$ %s\n' "$*" | sed "s#$dir#DIR#g; s#$vessel#vessel#g" >&3
	"$@"
}

echo "A root filesystem of busybox, and a config.json by 'vessel spec':"
mkdir -p "$dir/rootfs/bin" "$dir/rootfs"/{proc,sys,dev,tmp}
cp "$(command -v busybox)" "$dir/rootfs/bin/busybox"
for name in sh ls ps id hostname sleep echo; do ln -s busybox "$dir/rootfs/bin/$name"; done
show "$vessel" spec --bundle "$dir"
# No terminal, and a program that tells where it is.
sed -i 's/"terminal": true/"terminal": false/; s#^\( *\)"sh"$#\1"sh", "-c", "echo I am process $$ of $(hostname); ps; ls /; exec sleep 600"#' "$dir/config.json"

# The container keeps these streams.
show "$vessel" --root "$dir/state" create --bundle "$dir" "$id" </dev/null >>"$dir/out" 2>&1 || { cat "$dir/out"; exit 1; }
show "$vessel" --root "$dir/state" state "$id"
echo
show "$vessel" --root "$dir/state" start "$id"
for _ in $(seq 50); do grep -q "^tmp" "$dir/out" && break; sleep 0.1; done
echo "The output of the program:"
cat "$dir/out"
show "$vessel" --root "$dir/state" list
show "$vessel" --root "$dir/state" exec "$id" sh -c 'echo exec: I am $(id -u) in $(hostname)'
show "$vessel" --root "$dir/state" kill "$id" KILL
for _ in $(seq 50); do "$vessel" --root "$dir/state" state "$id" | grep -q stopped && break; sleep 0.1; done
show "$vessel" --root "$dir/state" delete "$id"
echo
echo "Nothing is left: $("$vessel" --root "$dir/state" list --quiet | wc -l) containers."
