#!/bin/bash
# Merges the outputs of the integration tests from several machines: fails where a test failed, was ignored, or ran on none of them.
#   hack/report.sh LOG...
# Tests that only the vm can run (hack/vm; their skips begin with "needs the vm") are told of and counted apart; where a
# LOG is called vm.log they have to run there.
# The last line is for machines: `N passed, N failed`.
set -euo pipefail

awk '
	# A line of libtest and one of the harness: both begin anew, whatever other threads print.
	match($0, /^test [A-Za-z0-9_:]+ \.\.\. (ok|FAILED)/) {
		name = $2
		seen[name] = 1
		if ($4 ~ /^FAILED/) { failed[name] = failed[name] " " FILENAME }
		else { passed[FILENAME, name] = 1; ok[name] = ok[name] FILENAME " " }
	}
	match($0, /^test [A-Za-z0-9_:]+ \.\.\. ignored/) { ignored[$2] = $0 }
	match($0, /SKIP [A-Za-z0-9_:]+: /) {
		line = substr($0, RSTART + 5)
		name = line; sub(/: .*/, "", name)
		reason = line; sub(/^[A-Za-z0-9_:]+: /, "", reason)
		skipped[FILENAME, name] = 1
		if (reason ~ /^needs the vm/) elsewhere[name] = 1
		else own[name] = 1
		why[name] = why[name] "\n    " FILENAME ": " reason
	}
	/^running [0-9]+ test/ { complete[FILENAME] = 0 }
	/^test result: / { complete[FILENAME] = 1 }
	END {
		bad = 0; good = 0; skips = 0; far = 0
		for (file in complete) if (file ~ /(^|\/)vm\.log$/) vm = 1
		for (file in complete) if (!complete[file]) { print "did not come to its end: " file; bad++ }
		for (name in seen) {
			ran = 0; absent = 0
			count = split(ok[name], files, " ")
			for (i = 1; i <= count; i++) { if ((files[i], name) in skipped) absent++; else ran = 1 }
			if (ran) skips += absent
			if (name in failed) { print "failed: " name " (" substr(failed[name], 2) ")"; bad++ }
			else if (!ran && !vm && (name in elsewhere) && !(name in own)) { print "needs the vm (make vm): " name; far++ }
			else if (!ran) { print "ran nowhere: " name why[name]; bad++ }
			else good++
		}
		for (name in ignored) { sub(/^test /, "", ignored[name]); print ignored[name]; bad++ }
		if (good == 0) { print "no tests ran"; bad++ }
		print skips " skipped on one machine, and run on another"
		if (far) print far " need the vm, and are not counted: run make vm"
		print good " passed, " bad " failed"
		exit bad > 0
	}
' "$@"
