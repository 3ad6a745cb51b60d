package answer

import (
	"slices"

	"hard/internal/wire"
)

// Table maps names to precomputed replies. Immutable; any goroutine may read it.
type Table struct {
	index   *Index
	entries []*Entry // by slot, the special-use names' at the end
}

// Change replaces the entry of one slot.
type Change struct {
	Slot  int
	Entry *Entry
}

// NewTable makes a table of one entry per slot of the index. A nil entry: the name is served as if it were not
// configured, that is, forwarded. It panics if there is another number of entries than of names.
func NewTable(ix *Index, entries []*Entry) *Table {
	if len(entries) != ix.names {
		panic("answer: one entry per name")
	}
	return &Table{index: ix, entries: slices.Concat(entries, ix.specials)}
}

// With returns a table with some entries replaced. It copies only the slice of pointers. It panics if a slot is not a
// configured name's.
func (t *Table) With(changes []Change) *Table {
	entries := slices.Clone(t.entries)
	names := entries[:t.index.names]
	for _, c := range changes {
		names[c.Slot] = c.Entry
	}
	return &Table{index: t.index, entries: entries}
}

// Len is the number of configured names.
func (t *Table) Len() int { return t.index.names }

// Lookup finds the entry for a lower-case wire name: exact first, then the longest wildcard. slot is -1, and e nil, if
// the name is not configured; special-use names are not.
func (t *Table) Lookup(key []byte) (e *Entry, slot int) {
	slot, _ = t.index.find(wire.Hash(key), key)
	if slot < 0 || slot >= t.index.names || t.entries[slot] == nil {
		return nil, -1
	}
	return t.entries[slot], slot
}
