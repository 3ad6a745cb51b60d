# What failed in the log of a `go test`, with or without -v.
#
# With names=1: a line for each package that failed, and behind it those of its tests that are to run again, as `A|B`. None are there
# where the tests did not come to their end (a panic, a time-out, a build that failed): then all of them are to be run.
# Otherwise: each failed test or subtest with the beginning and the end of its own output, long lines cut.

# A line belongs to the test that was named last.
/^=== (RUN|PAUSE|CONT|NAME) / {
	now = $3
	next
}
/^ *--- (PASS|FAIL|SKIP): / {
	depth = (index($0, "-") - 1) / 4
	slashes = gsub("/", "/", $3)
	if (depth == 0 && slashes == 0 || depth > 0 && slashes >= depth) { # else it is of another `go test`, whose output was logged
		now = $3
		if ($2 == "FAIL:")
			failed[++nfailed] = now
		next
	}
}
$0 == "PASS" || $0 == "FAIL" {
	ended = 1
	next
}
/^(ok|FAIL|\?) *\t/ {
	if ($1 == "FAIL")
		report($2)
	split("", lines)
	split("", count)
	nfailed = ended = 0
	now = ""
	next
}
{ lines[now, ++count[now]] = $0 }

function report(name,    i, top, tests, seen) {
	if (!ended || !nfailed) {
		if (names)
			print name
		else
			block(name " " now ", did not come to the end", now)
		return
	}
	for (i = 1; i <= nfailed; i++) {
		top = failed[i]
		sub("/.*", "", top)
		if (!names)
			block(name " " failed[i], failed[i])
		else if (!(top in seen))
			tests = tests (tests == "" ? "" : "|") top
		seen[top] = 1
	}
	if (names)
		print name, tests
}

function block(title, test,    i, n) {
	n = count[test]
	print "* " title (n ? ":" : "")
	for (i = 1; i <= n; i++)
		if (i <= 10 || i > n - 20)
			print "    " substr(lines[test, i], 1, 200)
		else if (i == 11)
			print "    [...]"
}
