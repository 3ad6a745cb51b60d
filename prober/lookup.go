package prober

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hard/internal/bug"
)

const (
	minTTL      = 5 * time.Second
	maxTTL      = 5 * time.Minute
	emptyTTL    = 30 * time.Second // of a negative reply that names none
	minGrace    = 30 * time.Second // an address that left DNS is kept this long, or two TTLs
	firstRetry  = time.Second      // after a failed look-up, doubling ...
	lastRetry   = 30 * time.Second // ... up to this
	lookupLimit = 5 * time.Second  // one look-up; upstreams have their own, shorter limits
	maxLookups  = 32               // at one time
)

// lookups keeps the addresses of all candidates' host names fresh. One goroutine runs the
// schedule and delivers; each look-up runs in one of its own, at most maxLookups at a time.
type lookups struct {
	// immutable
	lookup  Lookup
	deliver func(Found)
	log     *slog.Logger
	base    time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	kick    chan struct{} // the queue's head has changed
	slots   chan struct{}
	wg      sync.WaitGroup

	mu         sync.Mutex
	started    bool
	candidates map[candidateKey]*candidate
	hosts      map[string]*host
	queue      queue[*errand]
	news       []Found // to be delivered by the loop, without mu
}

type candidateKey struct{ name, label string }

// errand is something to be done at a time: a look-up, or the end of a grace.
type errand struct {
	queued
	run func(now moment) // with mu held
}

// candidate gathers what its host names resolve to.
type candidate struct {
	key     candidateKey
	known   []netip.Addr
	hosts   []*host
	current []netip.Addr          // in DNS at the last look
	gone    map[netip.Addr]moment // left DNS; end of the grace
	grace   *errand
	told    bool
	last    Found
}

// host is one host name, whoever asks for it.
type host struct {
	name     string
	families [2]*family
	users    []*candidate
}

// family is the look-up of one address family of one host name.
type family struct {
	host     *host
	v6       bool
	errand   *errand
	addrs    []netip.Addr
	ttl      time.Duration
	resolved bool // at least once
	err      error
	fails    int
	removed  bool
}

func newLookups(l Lookup, deliver func(Found), log *slog.Logger) *lookups {
	ctx, cancel := context.WithCancel(context.Background())
	return &lookups{
		lookup: l, deliver: deliver, log: log, base: time.Now(), ctx: ctx, cancel: cancel,
		kick: make(chan struct{}, 1), slots: make(chan struct{}, maxLookups),
		candidates: make(map[candidateKey]*candidate), hosts: make(map[string]*host),
	}
}

func (l *lookups) now() moment { return moment(time.Since(l.base)) }

func (l *lookups) start() {
	l.mu.Lock()
	l.started = true
	l.mu.Unlock()
	l.wg.Add(1)
	go l.loop()
}

func (l *lookups) stop() {
	l.cancel()
	l.wg.Wait()
}

// do runs f with mu held, and wakes the loop for what came of it. It delivers nothing itself: the
// caller may be the one who takes the news.
func (l *lookups) do(f func()) {
	l.mu.Lock()
	f()
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// loop runs the errands that are due, and delivers the news.
func (l *lookups) loop() {
	defer l.wg.Done()
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		timer.Reset(l.turn())
		select {
		case <-timer.C:
		case <-l.kick:
		case <-l.ctx.Done():
			return
		}
	}
}

// turn delivers the news, runs what is due, and returns how long to wait for the next turn.
func (l *lookups) turn() (wait time.Duration) {
	wait = time.Second // after a panic
	defer bug.Caught(l.log, "the schedule of look-ups")
	bug.Here("lookups")
	l.tellNews()
	return l.runDue()
}

func (l *lookups) tellNews() {
	l.mu.Lock()
	news := l.news
	l.news = nil
	l.mu.Unlock()
	for _, n := range news {
		l.deliver(n)
	}
}

// runDue runs what is due and returns how long to wait for the next errand.
func (l *lookups) runDue() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for l.queue.len() > 0 && l.queue.head().due <= now {
		e := l.queue.head()
		l.queue.remove(e)
		e.run(now)
	}
	switch {
	case len(l.news) > 0:
		return 0
	case l.queue.len() > 0:
		return l.queue.head().due.sub(now)
	}
	return never
}

// set replaces the whole set of candidates with host names.
func (l *lookups) set(hosts []Host) {
	l.do(func() {
		keep := make(map[candidateKey]bool, len(hosts))
		for _, h := range hosts {
			key := candidateKey{h.Name, h.Candidate}
			keep[key] = true
			l.setCandidate(key, h)
		}
		for key, c := range l.candidates {
			if !keep[key] {
				l.dropCandidate(c)
			}
		}
	})
}

func (l *lookups) setCandidate(key candidateKey, h Host) {
	c := l.candidates[key]
	if c == nil {
		c = &candidate{key: key, known: h.Known, gone: make(map[netip.Addr]moment)}
		c.grace = &errand{run: func(now moment) { l.refresh(c, now) }}
		l.candidates[key] = c
	}
	old := c.hosts
	c.hosts = nil
	for _, name := range h.Hosts {
		if used := l.use(name, c); !slices.Contains(c.hosts, used) {
			c.hosts = append(c.hosts, used)
		}
	}
	for _, o := range old {
		if !slices.Contains(c.hosts, o) {
			l.unuse(o, c)
		}
	}
	l.refresh(c, l.now())
}

func (l *lookups) dropCandidate(c *candidate) {
	for _, h := range c.hosts {
		l.unuse(h, c)
	}
	l.queue.remove(c.grace)
	delete(l.candidates, c.key)
}

// use registers a candidate with a host name, which is looked up at once when it is new.
func (l *lookups) use(name string, c *candidate) *host {
	h := l.hosts[name]
	if h == nil {
		h = &host{name: name}
		l.hosts[name] = h
		for i := range h.families {
			f := &family{host: h, v6: i == 1}
			f.errand = &errand{run: func(moment) { l.begin(f) }}
			h.families[i] = f
			l.queue.set(f.errand, l.now())
		}
	}
	if !slices.Contains(h.users, c) {
		h.users = append(h.users, c)
	}
	return h
}

func (l *lookups) unuse(h *host, c *candidate) {
	h.users = slices.DeleteFunc(h.users, func(o *candidate) bool { return o == c })
	if len(h.users) > 0 {
		return
	}
	for _, f := range h.families {
		f.removed = true
		l.queue.remove(f.errand)
	}
	delete(l.hosts, h.name)
}
