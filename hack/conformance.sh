#!/bin/bash
# docs/spec-conformance.md: what the OCI runtime-spec asks for, and the test that shows it.
#   hack/conformance.sh check              every clause has a test, each name of a clause is known, the document is current
#   hack/conformance.sh write              makes the document
#   hack/conformance.sh tests              prints the tests that name a clause
#   hack/conformance.sh record NAME LOG... keeps what a run of these tests against the runtime NAME has shown. What a
#                                          runtime does instead comes from deviates! in the test, or is written behind
#                                          FAILED into integration/spec/NAME.txt by hand, where it stays
# integration/spec/clauses.txt has the clauses; spec!("ID", ...) in a test, in a comment of a unit test, names those that it
# shows. Nothing is run for the first three. `make conformance RUNTIME=...` runs the tests and records.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
clauses=integration/spec/clauses.txt
document=docs/spec-conformance.md
# The order of the columns.
others=(runc crun youki)

named() { # prints ID TEST FILE:LINE for each clause that a test names
	find integration src -name '*.rs' ! -path 'integration/harness/*' ! -name probe.rs | LC_ALL=C sort | xargs awk '
		FNR == 1 {
			module = FILENAME; test = ""; text = ""
			unit = sub(/^src\//, "", module); sub(/^integration\//, "", module); sub(/\.rs$/, "", module); sub(/\/mod$/, "", module); gsub(/\//, "::", module)
			if (unit) module = module "::tests"
		}
		match($0, /^ *(pub )?fn [A-Za-z0-9_]+/) {
			test = substr($0, RSTART, RLENGTH); sub(/.* /, "", test)
		}
		text != "" || /spec!\(/ {
			line = $0
			if (text == "") { sub(/.*spec!\(/, "", line); at = FILENAME ":" FNR; text = " " }
			text = text line
			if (line !~ /\)/) next
			sub(/\).*/, "", text)
			while (match(text, /"[^"]+"/)) {
				print substr(text, RSTART + 1, RLENGTH - 2), module "::" test, at
				text = substr(text, RSTART + RLENGTH)
			}
			text = ""
		}'
}

check() {
	local faults
	faults=$(named | awk -v list="$clauses" '
		BEGIN {
			while ((getline line < list) > 0) {
				if (line !~ /^[a-z]/) continue
				split(line, word, " ")
				if (word[1] in known) print list ": " word[1] " is there twice"
				known[word[1]] = 1; order[++count] = word[1]
			}
		}
		!($1 in known) { print $3 ": there is no clause " $1 " in " list }
		{ shown[$1] = 1 }
		END { for (i = 1; i <= count; i++) if (!(order[i] in shown)) print list ": no test shows " order[i] }')
	[ -z "$faults" ] || { echo "$faults" >&2; return 1; }
	made | cmp -s - "$document" || { echo "$document is not current: hack/conformance.sh write" >&2; return 1; }
}

made() { # prints the document
	local results=()
	for name in "${others[@]}"; do results+=("integration/spec/$name.txt"); done
	named | awk -v list="$clauses" -v others="${others[*]}" '
		function base(level) { return level ~ /SHOULD|RECOMMENDED/ ? "should" : "must" }
		# What a runtime was seen to do of a clause: nothing where no test of it ran.
		function cell(id, name,    tests, count, i, answer, reason) {
			count = split(shows[id], tests, " "); answer = ""
			for (i = 1; i <= count; i++) {
				if (result[name, tests[i]] == "ok" && answer == "") answer = "yes"
				if (result[name, tests[i]] == "FAILED") { answer = "no"; if (why[name, tests[i]] != "") reason = why[name, tests[i]] }
			}
			seen[name, base(level[id]), answer]++
			return answer == "no" && reason != "" ? "no: " reason : answer
		}
		function short(test) { return "`" test "`" }
		BEGIN {
			columns = split(others, column, " ")
			for (c = 1; c <= columns; c++) {
				file = "integration/spec/" column[c] ".txt"
				while ((getline line < file) > 0) {
					if (line ~ /^# /) { about[c] = about[c] "\n* " column[c] ": " substr(line, 3); continue }
					split(line, word, " ")
					result[column[c], word[1]] = word[2]
					sub(/^[^ ]+ [^ ]+ ?/, "", line)
					why[column[c], word[1]] = line
				}
			}
		}
		!(($1, $2) in pair) { pair[$1, $2] = 1; shows[$1] = shows[$1] $2 " " }
		END {
			while ((getline line < list) > 0) {
				if (line ~ /^(#|$)/) continue
				id = line; sub(/ .*/, "", id); sub(/^[^ ]+ /, "", line)
				if (id == "=") {
					split(line, word, " "); title = line; sub(/^[^ ]+ [^ ]+ /, "", title)
					if (word[1] != last) body = body "\n## " word[1] "\n"
					last = word[1]; open = 0
					heading = "\n### [" title "](https://github.com/opencontainers/runtime-spec/blob/main/" word[1] word[2] ")\n\n"
					continue
				}
				match(line, /^(MUST|SHOULD|SHALL)( NOT)?|^(NOT )?RECOMMENDED|^REQUIRED/)
				kind = substr(line, 1, RLENGTH); words = substr(line, RLENGTH + 2)
				if (id == "-") {
					whom = words; sub(/\).*/, "", whom); sub(/^[^)]*\) /, "", words)
					foreign = foreign "| " last " | " title " | " kind " | " substr(whom, 2) " | " words " |\n"
					continue
				}
				level[id] = kind; total[base(kind)]++
				if (!open) {
					head = "| Clause | Level | Test |"; rule = "|---|---|---|"
					for (c = 1; c <= columns; c++) { head = head " " column[c] " |"; rule = rule "---|" }
					body = body heading head "\n" rule "\n"; open = 1
				}
				tests = shows[id]; sub(/ $/, "", tests); gsub(/ /, "`, `", tests)
				if (tests != "") kept[base(kind)]++
				row = "| " words " | " kind " | " (tests != "" ? short(tests) : "") " |"
				for (c = 1; c <= columns; c++) row = row " " cell(id, column[c]) " |"
				body = body row "\n"
			}
			print "# Conformance to the OCI runtime-spec\n"
			print "One row for each MUST, MUST NOT, SHALL, REQUIRED, RECOMMENDED, SHOULD and SHOULD NOT of the runtime-spec (1.3.0 and"
			print "main) that binds a runtime for Linux, with the test that shows it. vessel passes every test that is named here:"
			print "`make ci` fails where one fails or runs nowhere, where a clause has no test, and where this file is not current. It is"
			print "made by `hack/conformance.sh write`, of `integration/spec/clauses.txt` and of the tests (`spec!`)."
			print ""
			print "The columns of other runtimes are what the same tests have shown of them (`make conformance RUNTIME=...`): \"yes\""
			print "where all that ran have passed, \"no\" where one has failed, nothing where none could run. A test may ask for more than"
			print "its clause says, for instance where the specification leaves open how an error looks; what is behind \"no\" is then said."
			print ""
			print "`run` of youki misses the end of a short program now and then, and waits for ever; such a test was run again. It was"
			print "built without its feature cgroupsv2_devices."
			print ""
			print "Two clauses are kept to the letter only where it is asked for, with VESSEL_STRICT=1 in the environment: that a created"
			print "container, which has not stopped, cannot be deleted (engines count on the contrary, and every runtime grants it);"
			print "and that a limit which has nothing like it on cgroup v2 is an error, and no warning."
			print ""
			measured = ""; head = "| | clauses | vessel |"; line = "|---|---|---|"
			for (c = 1; c <= columns; c++) { measured = measured about[c]; head = head " " column[c] " |"; line = line "---|" }
			printf "Measured:%s\n\n%s\n%s\n", measured == "" ? " nothing." : "\n" measured, head, line
			for (k = 1; k <= 2; k++) {
				name = k == 1 ? "must" : "should"
				line = "| " (k == 1 ? "MUST, MUST NOT, REQUIRED" : "SHOULD, SHOULD NOT") " | " total[name] " | " kept[name] " yes |"
				for (c = 1; c <= columns; c++)
					line = line sprintf(" %d yes, %d no, %d not measured |", seen[column[c], name, "yes"], seen[column[c], name, "no"], seen[column[c], name, ""])
				print line
			}
			printf "%s", body
			print "\n## Clauses that bind others\n\n| File | Section | Level | Whom | Clause |\n|---|---|---|---|---|"
			printf "%s\n", foreign
		}'
	cat integration/spec/faults.md
}

record() { # record NAME LOG...
	local name=$1 out=integration/spec/$1.txt
	shift
	[[ " ${others[*]} " == *" $name "* ]] || { echo "conformance: no column for $name" >&2; return 1; }
	touch "$out"
	(cd "$here" && cat "$@") | awk -v before="$out" '
		BEGIN {
			while ((getline line < before) > 0) {
				split(line, word, " ")
				if (word[2] == "FAILED" && sub(/^[^ ]+ FAILED /, "", line)) reason[word[1]] = line
			}
		}
		match($0, /MEASURED .*/) { line = substr($0, RSTART + 9); if (!(line in about)) { about[line] = 1; print "# " line } }
		match($0, /^test [A-Za-z0-9_:]+ \.\.\. (ok|FAILED)/) { if ($4 ~ /^FAILED/) failed[$2] = 1; else passed[$2]++ }
		match($0, /(SKIP|DEVIATES) [A-Za-z0-9_:]+: /) {
			line = substr($0, RSTART); split(line, word, " "); test = word[2]; sub(/:$/, "", test)
			sub(/^[A-Z]+ [A-Za-z0-9_:]+: /, "", line)
			if (word[1] == "SKIP") skipped[test]++; else reason[test] = line
		}
		END {
			for (test in failed) print test, "FAILED", reason[test] | "LC_ALL=C sort"
			for (test in passed) if (!(test in failed) && passed[test] > skipped[test]) print test, "ok" | "LC_ALL=C sort"
		}' | sed 's/ *$//' >"$out.new"
	mv "$out.new" "$out"
	write
}

write() {
	made >"$document.new"
	mv "$document.new" "$document"
}

case ${1:-} in
	check | write) "$1" ;;
	tests) named | cut -d' ' -f2 | LC_ALL=C sort -u ;;
	record) record "${@:2}" ;;
	*) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \?//' >&2; exit 2 ;;
esac
