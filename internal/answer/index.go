package answer

import (
	"bytes"
	"fmt"
	"math/bits"

	"hard/internal/wire"
)

// Index maps names to slots. Immutable, shared by all tables of one configuration.
//
// Exact names and wildcards (under the name they are below) have a hash table each: open addressing, linear probing,
// at most two thirds full, keys in one block of bytes. 10,000 names of 25 octets take 390 KiB.
type Index struct {
	exact    hashTable
	wild     hashTable
	depths   [2]uint64 // bit n: there is a wildcard below a name of n labels
	names    int       // slots of configured names; the special-use names have those from there on
	specials []*Entry
}

// NewIndex gives every name (canonical text; "*.x" for a wildcard) the slot of its position. A name that is not one,
// or is there twice, is an error. The special-use names are added behind them, where they are not configured.
func NewIndex(names []string) (*Index, error) {
	if len(names) > maxNames {
		return nil, fmt.Errorf("%d names: there is room for %d", len(names), maxNames)
	}
	specials := specialNames()
	wilds := 0
	size := 0
	for _, name := range names {
		size += len(name) + 2
		if isWildcard(name) {
			wilds++
		}
	}
	for _, s := range specials {
		size += len(s.name) + 2
	}
	ix := &Index{names: len(names)}
	ix.exact = newHashTable(len(names)-wilds+len(specials), size)
	ix.wild = newHashTable(wilds+len(specials), 0)
	for slot, name := range names {
		fresh, err := ix.add(name, slot)
		switch {
		case err != nil:
			return nil, fmt.Errorf("name %q: %w", name, err)
		case !fresh:
			return nil, fmt.Errorf("name %q: configured twice", name)
		}
	}
	for _, s := range specials {
		fresh, err := ix.add(s.name, ix.names+len(ix.specials))
		if err != nil {
			return nil, fmt.Errorf("special-use name %q: %w", s.name, err)
		}
		if fresh {
			ix.specials = append(ix.specials, s.entry)
		}
	}
	return ix, nil
}

func isWildcard(name string) bool {
	return name == "*" || len(name) > 2 && name[:2] == "*."
}

// add enters one name; fresh is false if it was there.
func (ix *Index) add(name string, slot int) (fresh bool, err error) {
	var buf [wire.MaxName + 1]byte
	table, key, err := ix.place(buf[:0], name)
	if err != nil {
		return false, err
	}
	if table == &ix.wild {
		depth := labels(key)
		ix.depths[depth/64] |= 1 << (depth % 64)
	}
	return table.add(key, slot), nil
}

// place tells which table a name belongs into and under which key, which is appended to buf.
func (ix *Index) place(buf []byte, name string) (table *hashTable, key []byte, err error) {
	table = &ix.exact
	if isWildcard(name) {
		table = &ix.wild
		if name = name[1:]; name != "" && name != "." {
			name = name[1:]
		} else {
			name = "."
		}
	}
	key, err = wire.AppendName(buf, name)
	return table, key, err
}

// Slot returns the slot that NewIndex gave a name, in canonical text; -1 if it is not configured. A wildcard is found
// by its own text alone.
func (ix *Index) Slot(name string) int {
	var buf [wire.MaxName + 1]byte
	table, key, err := ix.place(buf[:0], name)
	if err != nil {
		return -1
	}
	if slot := table.find(wire.Hash(key), key); slot < ix.names {
		return slot
	}
	return -1 // a special-use name
}

// find returns the slot for a lower-case wire name and the length of what it matched: the whole name, or the name
// that the longest wildcard is below. slot is -1 if there is none.
func (ix *Index) find(hash uint64, key []byte) (slot, matched int) {
	if slot = ix.exact.find(hash, key); slot >= 0 {
		return slot, len(key)
	}
	return ix.findWild(key)
}

// findWild tries the suffixes from the longest on, but only those as deep as some wildcard is.
func (ix *Index) findWild(key []byte) (slot, matched int) {
	depth := labels(key)
	for suffix := key; depth > 0; {
		suffix = suffix[1+int(suffix[0]):]
		depth--
		if ix.depths[depth/64]>>(depth%64)&1 == 0 {
			continue
		}
		if slot := ix.wild.find(wire.Hash(suffix), suffix); slot >= 0 {
			return slot, len(suffix)
		}
	}
	return -1, 0
}

// labels counts the labels of a wire name, the root not included: at most 127.
func labels(key []byte) uint {
	n := uint(0)
	for i := 0; i < len(key) && key[i] != 0; i += 1 + int(key[i]) {
		n++
	}
	return n
}

// hashTable maps wire names to slots.
type hashTable struct {
	buckets []bucket // a power of two
	keys    []byte   // one behind another; a wire name ends itself
}

// bucket is one place of a hash table, of eight bytes: as small as can be, so that few of them leave the processor's
// cache.
type bucket struct {
	slot uint32 // bits 31 to 24: the hash's upper ones; below: one more than the slot, so that 0 is an empty bucket
	key  uint32 // where it begins in keys
}

const (
	slotBits = 24
	slotMask = 1<<slotBits - 1
	maxNames = 1 << 23 // what slotMask and the offsets of their keys have room for
)

// newHashTable makes room for n keys of together size octets.
func newHashTable(n, size int) hashTable {
	places := 1 << bits.Len(uint(n+n/2))
	return hashTable{buckets: make([]bucket, places), keys: make([]byte, 0, size)}
}

// find returns the slot of a key, or -1.
func (h *hashTable) find(hash uint64, key []byte) int {
	mask := len(h.buckets) - 1
	tag := uint32(hash>>32) &^ slotMask
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		b := h.buckets[i]
		if b.slot == 0 {
			return -1
		}
		// Near the end of keys the slice may be shorter than key, and then differs.
		if b.slot&^slotMask == tag && bytes.HasPrefix(h.keys[b.key:], key) {
			return int(b.slot&slotMask) - 1
		}
	}
}

// add enters a key that is not there yet; false: it is.
func (h *hashTable) add(key []byte, slot int) bool {
	hash := wire.Hash(key)
	if h.find(hash, key) >= 0 {
		return false
	}
	mask := len(h.buckets) - 1
	i := int(hash) & mask
	for h.buckets[i].slot != 0 {
		i = (i + 1) & mask
	}
	h.buckets[i] = bucket{slot: uint32(hash>>32)&^slotMask | uint32(slot+1), key: uint32(len(h.keys))}
	h.keys = append(h.keys, key...)
	return true
}
