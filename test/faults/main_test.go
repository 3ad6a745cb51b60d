// Package faults breaks things for real around the whole daemon: row by row of the table in
// docs/reliability.md, which names these tests. They are named by row.
package faults

import (
	"testing"

	"hard/test/faulty"
)

func TestMain(m *testing.M) { faulty.Main(m) }

// static is a name whose answer never changes: 192.0.2.1.
const static = `
[name."static.example"]
candidates = ["192.0.2.1"]
check = "static:"
`

func ours() faulty.Question { return faulty.Ours("static.example", "192.0.2.1") }
