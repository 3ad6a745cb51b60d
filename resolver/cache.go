package resolver

import (
	"container/list"
	"encoding/binary"
	"sync"
	"time"

	"hard/internal/wire"
)

// cache keeps upstreams' replies, if [cache] is enabled: an LRU list bounded
// by entries and bytes. It is our own, of a page, because what a library would
// add (generics, shards, callbacks) is not needed and what is needed (a bound
// in bytes together with stale entries that are still of use) is not there.
// A nil *cache keeps nothing.
//
// The key holds all that may change an answer: name, type, class, DO, CD, AD,
// RD and whether there is an OPT (requirement 55). Queries with options of
// their own are not cached, nor is anything of a configured name.
type cache struct {
	opts     CacheOptions // immutable
	maxBytes int

	mu      sync.Mutex // guards the rest
	entries map[string]*list.Element
	byUse   *list.List // of *cacheEntry, latest use first
	bytes   int
	hits    uint64
	misses  uint64
}

// cacheEntry is one reply. Guarded by the cache's lock but for msg, which is
// immutable.
type cacheEntry struct {
	key        string
	msg        []byte
	stored     int64 // forwarder's clock
	ttl        int64 // nanoseconds
	hits       int   // since it was stored
	refreshing bool
}

const (
	defaultCacheEntries = 10000
	cacheBytesPerEntry  = 512 // with max_entries, the bound in bytes
	cacheMaxMessage     = 8 << 10
	cacheOverhead       = 200       // of an entry, besides key and message
	cacheMaxTTL         = 24 * 3600 // seconds
	cacheMaxNegative    = 3600      // seconds; RFC 2308 section 5 advises 1 to 3 hours
	prefetchHits        = 2         // an entry is hot if it was asked for this often ...
	prefetchPart        = 10        // ... and refreshed in the last tenth of its life
	staleTTL            = 30        // seconds, RFC 8767 section 4
)

// forOptions returns the cache for o: c itself if nothing changed.
func (c *cache) forOptions(o CacheOptions) *cache {
	if !o.Enabled {
		return nil
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = defaultCacheEntries
	}
	if c != nil && c.opts == o {
		return c
	}
	return &cache{opts: o, maxBytes: o.MaxEntries * cacheBytesPerEntry,
		entries: make(map[string]*list.Element), byUse: list.New()}
}

// cacheKey appends the key of a question in lower-case wire form; ok is false
// for a query whose reply is its own.
func cacheKey(dst, msg []byte, q *wire.Query) (key []byte, ok bool) {
	k, ok := shareKey(msg, q, false)
	if !ok || q.Type == wire.TypeANY || q.Class != wire.ClassIN {
		return dst, false
	}
	return append(binary.BigEndian.AppendUint64(dst, k), q.Name()...), true
}

// flightKey is cacheKey for a flight.
func flightKey(fl *flight) string {
	b := binary.BigEndian.AppendUint64(nil, fl.key&^1) // a TCP query's reply serves UDP too
	for _, c := range fl.question()[:fl.qend-wire.HeaderLen-4] {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return string(b)
}

// fromCache answers r from the cache and reports whether it did. A hot entry
// near its end is asked for again in the background.
func (f *forwarder) fromCache(c *upConf, r *request) bool {
	if r.entry != nil {
		return false
	}
	var kb [300]byte
	key, ok := cacheKey(kb[:0], r.msg, r.q)
	if !ok {
		return false
	}
	now := f.now()
	e, age, refresh := c.cache.get(key, now)
	if e == nil {
		return false
	}
	cl := client{asked: r.q.Asked, from: r.from}
	m := agedReply(e.msg, uint32(age/int64(time.Second)), &cl, r.msg[wire.HeaderLen:r.q.QEnd])
	if m == nil {
		return false
	}
	if refresh {
		f.laneOf(r.q.Hash).askOwn(c, r, false, make(chan []byte, 1))
	}
	r.from.replyAs(sourceCache, m)
	return true
}

// get returns the fresh entry for key and its age, and whether the caller is
// to refresh it.
func (c *cache) get(key []byte, now int64) (e *cacheEntry, age int64, refresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[string(key)]
	if el == nil {
		c.misses++
		return nil, 0, false
	}
	e = el.Value.(*cacheEntry)
	if age = now - e.stored; age >= e.ttl {
		c.misses++
		return nil, 0, false
	}
	c.hits++
	e.hits++
	c.byUse.MoveToFront(el)
	if !e.refreshing && e.hits > prefetchHits && e.ttl-age < e.ttl/prefetchPart {
		e.refreshing, refresh = true, true
	}
	return e, age, refresh
}

// agedReply is the cached reply m for cl, its TTLs lowered by age seconds.
func agedReply(m []byte, age uint32, cl *client, question []byte) []byte {
	buf := make([]byte, max(len(m), maxTruncated)+fitRoom)
	n := copy(buf, m)
	var rep wire.Reply
	if !rep.Parse(buf[:n]) {
		return nil
	}
	wire.AgeTTLs(buf[:n], rep.QEnd, age, 0)
	return fitReply(buf, n, &rep, cl, question, nil)
}

// store keeps the reply m of fl, if it may be kept.
func (c *cache) store(fl *flight, m []byte, rep *wire.Reply, now int64) {
	if fl.entry != nil || fl.key == 0 || len(m) > cacheMaxMessage || rep.Flags&wire.FlagTC != 0 {
		return
	}
	if fl.client.asked.Class != wire.ClassIN || fl.client.asked.Type == wire.TypeANY {
		return
	}
	ttl := replyTTL(m, rep)
	if ttl == 0 {
		if goodRcode(rep.Rcode) { // not to be kept, but what was kept is no longer true, or not for later
			c.drop(flightKey(fl))
		}
		return
	}
	e := &cacheEntry{key: flightKey(fl), msg: append([]byte(nil), m[:rep.End]...), stored: now, ttl: int64(ttl) * int64(time.Second)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[e.key]; el != nil {
		c.removeLocked(el)
	}
	c.entries[e.key] = c.byUse.PushFront(e)
	c.bytes += e.size()
	for len(c.entries) > c.opts.MaxEntries || c.bytes > c.maxBytes {
		c.removeLocked(c.byUse.Back())
	}
}

func (c *cache) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[key]; el != nil {
		c.removeLocked(el)
	}
}

func (e *cacheEntry) size() int { return len(e.key) + cap(e.msg) + cacheOverhead }

func (c *cache) removeLocked(el *list.Element) {
	e := c.byUse.Remove(el).(*cacheEntry)
	delete(c.entries, e.key)
	c.bytes -= e.size()
}

// replyTTL is how long a reply may be kept, in seconds; 0 = not at all.
func replyTTL(m []byte, rep *wire.Reply) uint32 {
	if rep.Rcode == wire.NoError && rep.Counts[0] > 0 {
		// An answer that ends in a CNAME is negative for what was asked for.
		return min(rep.MinTTL, cacheMaxTTL)
	}
	if rep.Rcode != wire.NoError && rep.Rcode != wire.NXDomain {
		return 0
	}
	w := wire.WalkRecords(m, rep.QEnd)
	var rec wire.Record
	for w.Next(&rec) {
		if rec.Section == 1 && rec.Type == wire.TypeSOA && rec.Len >= 22 {
			minimum := binary.BigEndian.Uint32(m[rec.Data+rec.Len-4:])
			return min(rec.TTL, minimum, rep.MinTTL, cacheMaxNegative)
		}
	}
	return 0 // no SOA: RFC 2308 section 5 forbids to keep it
}

// serveStale answers fl, which has failed, from an entry that is no longer
// fresh, with TTL 30 and EDE 3 (RFC 8767, RFC 8914), and reports whether it did. A lookup of our own gets nothing
// stale: it would rather know that it has failed.
func (c *cache) serveStale(l *lane, fl *flight) bool {
	if fl.entry != nil || fl.key == 0 {
		return false
	}
	key := flightKey(fl)
	now := l.f.now()
	c.mu.Lock()
	el := c.entries[key]
	var e *cacheEntry
	if el != nil {
		e = el.Value.(*cacheEntry)
		e.refreshing = false
		if now-e.stored >= e.ttl+int64(c.opts.ServeStale) {
			e = nil
		}
	}
	c.mu.Unlock()
	if e == nil || fl.client.lookup != nil {
		return false
	}
	for cl := range fl.each {
		buf := make([]byte, max(len(e.msg), maxTruncated)+fitRoom)
		n := copy(buf, e.msg)
		var rep wire.Reply
		if !rep.Parse(buf[:n]) {
			return false
		}
		wire.CapTTLs(buf[:n], rep.QEnd, staleTTL)
		cl.give(fitReply(buf, n, &rep, cl, fl.questionOf(cl), l.edeOption(wire.EDEStaleAnswer)), sourceStale)
	}
	l.freeFlight(fl)
	return true
}
