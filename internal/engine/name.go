package engine

import (
	"net/netip"
	"slices"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/rank"
)

// name is the ranking state of one configured name. There may be 10,000: it keeps what decides,
// and neither decisions nor what replies were built from.
type name struct {
	cfg  *config.Name
	slot int
	eps  []endpoint // in the order ties are broken: file order, then address order
	ids  []uint32   // of the candidates, for the front end's counters

	memory  *rank.Memory // for the next decision; nil: none was made yet
	before  *rank.Memory // what the last decision was made with ...
	decided time.Time    // ... and when

	entry   *answer.Entry // the last one, in the table or about to be; nil: none was made yet
	sum     sums          // of it
	held    bool          // it lets queries wait
	stale   bool          // it must be built again, whatever its sum: something else in the file changed
	allDown bool          // on_all_down is in force
	static  bool          // no endpoint is probed
	probed  bool          // the prober has checks of it
	marked  bool          // in currentRows
	stored  time.Time
	firstAt time.Time // of first answers that are still to be recorded; zero: none are

	idle  idleState
	due   time.Time // when time alone may change something; zero = never
	place int       // in the wake queue; -1 = not in it
}

// endpoint is the state of one endpoint.
type endpoint struct {
	cand     *config.Candidate
	addr     netip.Addr
	health   *rank.Health  // never nil; of a static endpoint shared and never changed
	every    time.Duration // the interval last given to the prober; 0 = the prober's own
	gone     bool          // left DNS, kept in its grace
	selected bool          // in the answer of its family
	hurried  bool          // its first probe was asked for by a query
}

// static tells whether the endpoint is healthy by definition.
func (ep *endpoint) static() bool { return ep.cand.Check.Kind == config.CheckStatic }

// staticHealth is the health of every static endpoint.
var staticHealth = &rank.Health{State: rank.Healthy}

// candidate is the position of an endpoint's candidate in the configuration.
func (n *name) candidate(ep *endpoint) int {
	for i := range n.cfg.Candidates {
		if &n.cfg.Candidates[i] == ep.cand {
			return i
		}
	}
	panic("engine: an endpoint of another name's candidate")
}

// found is what the host names of one candidate resolve to.
type found struct {
	addrs, gone []netip.Addr
	resolved    bool // some look-up of this run had an answer
	had         bool // an address, in this run or in the store
}

func (n *name) key(ep *endpoint) rank.Key {
	return rank.Key{Name: n.cfg.Name, Candidate: ep.cand.Label, Addr: ep.addr}
}

// find returns the endpoint of a key, or nil when it is no more.
func (n *name) find(k *rank.Key) *endpoint {
	for i := range n.eps {
		if ep := &n.eps[i]; ep.addr == k.Addr && ep.cand.Label == k.Candidate {
			return ep
		}
	}
	return nil
}

// apply takes a whole configuration. Nothing is changed when it fails.
func (e *Engine) apply(c *config.Config, now time.Time) error {
	index, err := e.indexOf(c.Names)
	if err != nil {
		return err
	}
	before := past{e.index, e.names}
	e.hash = c.Hash
	e.index, e.names = index, make([]*name, len(c.Names))
	e.wake = e.wake[:0]
	e.changes = e.changes[:0]
	e.hosts = slices.Grow(e.hosts, newHosts(c, &before))
	entries := make([]*answer.Entry, len(c.Names))
	fresh := slab{left: len(c.Names)}
	for slot := range c.Names {
		cfg := &c.Names[slot]
		n := before.take(cfg.Name, slot)
		switch {
		case n == nil:
			n = fresh.take()
			if m, ok := e.o.Saved.Memories[cfg.Name]; ok {
				saved := m // m itself would be made for every name
				n.memory = &saved
			}
			e.configure(n, cfg, now)
		case !n.sameEndpoints(cfg):
			e.configure(n, cfg, now)
		case n.sameEntry(cfg):
			entries[slot] = n.entry
			n.adopt(cfg)
		default:
			n.adopt(cfg)
			n.stale, n.place = true, -1
			n.idle.reset(cfg.IdleAfter, now)
		}
		n.slot, e.names[slot] = slot, n
	}
	e.dropNames(before.names)
	e.setHosts()
	e.guardConfigure()
	e.rebuild(entries, now)
	return nil
}

// configure gives a name another configuration, or its first one.
func (e *Engine) configure(n *name, cfg *config.Name, now time.Time) {
	var was []config.Candidate
	if n.cfg != nil {
		was = n.cfg.Candidates
		if !sameAnswer(n.cfg, cfg) {
			e.settleFirst(n)
		}
	}
	n.cfg, n.stale, n.place = cfg, true, -1
	e.number(n, was, n.ids)
	e.expand(n, now)
	mayBeProbed := func(c config.Candidate) bool { return c.Check.Kind != config.CheckStatic && len(c.Hosts) > 0 }
	if n.static && !slices.ContainsFunc(cfg.Candidates, mayBeProbed) {
		n.memory = nil // of a time when it was probed: decide doesn't keep it up, so its tier and incumbent would stay for good
	}
	n.idle.reset(cfg.IdleAfter, now)
}

// indexOf is the index of these names: the present one, if they are the same in the same order.
func (e *Engine) indexOf(names []config.Name) (*answer.Index, error) {
	if e.index != nil && slices.EqualFunc(e.names, names, func(n *name, cfg config.Name) bool {
		return n != nil && n.cfg.Name == cfg.Name // nil: a bug's panic ended the reload before
	}) {
		return e.index, nil
	}
	texts := make([]string, len(names))
	for i := range names {
		texts[i] = names[i].Name
	}
	return answer.NewIndex(texts)
}

// named finds a name by its canonical text; nil if it is not configured.
func (e *Engine) named(text string) *name {
	if e.index == nil {
		return nil // there is no configuration yet
	}
	if slot := e.index.Slot(text); slot >= 0 {
		return e.names[slot]
	}
	return nil
}

// past are the names of the configuration before.
type past struct {
	index *answer.Index // nil: there was none
	names []*name       // nil: taken
}

// find returns where a name is among them, or -1. near is where it probably is.
func (p *past) find(text string, near int) int {
	if near < len(p.names) && p.names[near] != nil && p.names[near].cfg.Name == text {
		return near
	}
	if p.index == nil {
		return -1
	}
	return p.index.Slot(text)
}

// take takes a name out, or returns nil.
func (p *past) take(text string, near int) *name {
	slot := p.find(text, near)
	if slot < 0 {
		return nil
	}
	n := p.names[slot]
	p.names[slot] = nil
	return n
}

// newHosts is about how many numbers the candidates of a configuration will be given (number).
func newHosts(c *config.Config, before *past) int {
	count := 0
	for i := range c.Names {
		if before.find(c.Names[i].Name, i) < 0 {
			count += len(c.Names[i].Candidates)
		}
	}
	return count
}

// slab makes names in pieces: 10,000 one by one take longer. A piece lives as long as any of its names, so it is small.
type slab struct {
	free []name
	left int // how many may still be asked for
}

// namesAtOnce fill a piece of 8 KiB, a size of Go's allocator; with one more it would be a seventh larger.
const namesAtOnce = 31

func (s *slab) take() *name {
	if len(s.free) == 0 {
		s.free = make([]name, min(namesAtOnce, s.left))
	}
	n := &s.free[0]
	s.free, s.left = s.free[1:], s.left-1
	return n
}

// sameAnswer tells whether a name with nothing to probe is answered alike under two configurations, so that its first
// answer, if that is still to be recorded, can go on waiting. A reload soon after the start would otherwise write
// those of thousands of names at once, beside the queries.
func sameAnswer(a, b *config.Name) bool {
	return *a.Policy == *b.Policy && slices.EqualFunc(a.Candidates, b.Candidates, func(x, y config.Candidate) bool {
		return x.Label == y.Label && x.Tier == y.Tier && x.Weight == y.Weight && x.State == y.State &&
			slices.Equal(x.Addrs, y.Addrs) && slices.Equal(x.Hosts, y.Hosts) && x.Check.Kind == y.Check.Kind
	})
}

// sameEndpoints tells whether the endpoints of a name are the same, and nothing is known of them but what the file says:
// nothing is probed or looked up.
func (n *name) sameEndpoints(cfg *config.Name) bool {
	lookedUp := func(c config.Candidate) bool { return len(c.Hosts) > 0 }
	return n.static && sameAnswer(n.cfg, cfg) && !slices.ContainsFunc(cfg.Candidates, lookedUp)
}

// sameEntry tells of such a name whether its entry in the table stays, too. Of the thousands of names of a large file
// a reload rarely changes more than a few.
func (n *name) sameEntry(cfg *config.Name) bool {
	return n.entry != nil && !n.stale && n.due.IsZero() && n.cfg.IdleAfter == 0 && cfg.IdleAfter == 0 && n.cfg.TTL == cfg.TTL && n.cfg.SVCB == cfg.SVCB
}

// adopt takes a configuration of the same endpoints. The one before is let go.
func (n *name) adopt(cfg *config.Name) {
	for i := range n.eps {
		ep := &n.eps[i]
		ep.cand = &cfg.Candidates[n.candidate(ep)]
	}
	n.cfg = cfg
}

// reload is apply while we run.
func (e *Engine) reload(c *config.Config, now time.Time) error {
	if err := e.apply(c, now); err != nil {
		return err
	}
	e.guardTick(now)
	e.o.Recorder.Input(Input{At: now, Kind: InputConfig, Config: c.Hash})
	e.checkpoint("config", now)
	return nil
}

// dropNames forgets names that the configuration no longer has; those that it has are nil.
func (e *Engine) dropNames(gone []*name) {
	for _, n := range gone {
		if n == nil {
			continue
		}
		e.o.Prober.SetName(n.cfg.Name, nil)
		keys := make([]rank.Key, len(n.eps))
		for i := range n.eps {
			keys[i] = n.key(&n.eps[i])
		}
		e.o.Recorder.Forget(keys)
	}
}

// expand makes a name's endpoints from its candidates and their addresses. Endpoints that stay
// keep their state; new ones take the stored state where that may be used.
func (e *Engine) expand(n *name, now time.Time) {
	old := n.eps
	n.eps = make([]endpoint, 0, max(len(old), len(n.cfg.Candidates)))
	for i := range n.cfg.Candidates {
		cand := &n.cfg.Candidates[i]
		f := e.addrs[HostKey{n.cfg.Name, cand.Label}]
		for _, a := range cand.Addrs {
			n.addEndpoint(cand, a, false)
		}
		if len(cand.Hosts) == 0 {
			continue
		}
		for _, a := range f.addrs {
			n.addEndpoint(cand, a, false)
		}
		for _, a := range f.gone {
			n.addEndpoint(cand, a, true)
		}
	}
	n.static = true
	for i := range n.eps {
		ep := &n.eps[i]
		if ep.static() {
			ep.health = staticHealth
			continue
		}
		n.static = false
		if !inherit(ep, old) {
			ep.health = new(rank.Health)
			e.restore(n, ep, now)
		}
	}
	e.forgetVanished(n, old)
	if e.started {
		e.setChecks(n)
	}
}

// addEndpoint adds an address of a candidate. One address is one endpoint per name: the lowest
// tier, then file order, keeps it; an address still in DNS beats one in its grace.
func (n *name) addEndpoint(cand *config.Candidate, a netip.Addr, gone bool) {
	for i := range n.eps {
		ep := &n.eps[i]
		if ep.addr != a {
			continue
		}
		if cand.Tier < ep.cand.Tier || (ep.gone && !gone) {
			*ep = endpoint{cand: cand, addr: a, gone: gone}
		}
		return
	}
	n.eps = append(n.eps, endpoint{cand: cand, addr: a, gone: gone})
}

// inherit takes over the state of the same endpoint from before, if its check is the same.
func inherit(ep *endpoint, old []endpoint) bool {
	for i := range old {
		if o := &old[i]; o.addr == ep.addr && o.cand.Label == ep.cand.Label {
			if o.cand.Check.Fingerprint == ep.cand.Check.Fingerprint {
				ep.health, ep.every, ep.selected = o.health, o.every, o.selected
				return true
			}
			return false
		}
	}
	return false
}

// forgetVanished records what is no longer an endpoint.
func (e *Engine) forgetVanished(n *name, old []endpoint) {
	var keys []rank.Key
	for i := range old {
		k := rank.Key{Name: n.cfg.Name, Candidate: old[i].cand.Label, Addr: old[i].addr}
		if n.find(&k) == nil {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		e.o.Recorder.Forget(keys)
	}
}

// setAddresses takes the addresses of one candidate.
func (e *Engine) setAddresses(host HostKey, f found, now time.Time) {
	n, was := e.named(host.Name), e.addrs[host]
	f.resolved = f.resolved || was.resolved
	f.had = was.had || len(f.addrs) > 0
	same := slices.Equal(was.addrs, f.addrs) && slices.Equal(was.gone, f.gone)
	e.addrs[host] = f
	if n == nil || (same && was.resolved == f.resolved) {
		return
	}
	e.o.Recorder.Input(Input{At: now, Kind: InputAddress, Host: host, Addrs: f.addrs, Gone: f.gone, Resolved: f.resolved})
	if !same {
		if f.resolved {
			e.o.Recorder.Addresses(host, f.addrs)
		}
		e.o.Recorder.Event(Event{
			At: now, Key: rank.Key{Name: host.Name, Candidate: host.Candidate}, Kind: "address",
			Old: joinAddrs(was.addrs), New: joinAddrs(f.addrs), Reason: "DNS",
		})
	}
	e.expand(n, now)
	e.guardConfigure()
	e.decide(n, now, false)
}

// setChecks gives the prober what one name wants probed.
func (e *Engine) setChecks(n *name) {
	if n.static && !n.probed {
		return // as most of thousands of names
	}
	n.probed = !n.static
	checks := make([]Check, 0, len(n.eps))
	for i := range n.eps {
		ep := &n.eps[i]
		if ep.static() {
			continue
		}
		checks = append(checks, Check{
			Key: n.key(ep), Check: ep.cand.Check, Pace: n.cfg.Pace,
			Watch: n.cfg.Watch && ep.selected,
		})
	}
	if len(checks) > 0 || len(n.cfg.Candidates) > 0 {
		e.o.Prober.SetName(n.cfg.Name, checks)
	}
}

// setHosts gives the prober the host names of all candidates.
func (e *Engine) setHosts() {
	if !e.started {
		return
	}
	var hosts []Host
	for _, n := range e.names {
		for i := range n.cfg.Candidates {
			if c := &n.cfg.Candidates[i]; len(c.Hosts) > 0 {
				k := HostKey{n.cfg.Name, c.Label}
				hosts = append(hosts, Host{HostKey: k, Hosts: c.Hosts, Known: e.addrs[k].addrs})
			}
		}
	}
	e.o.Prober.SetHosts(hosts)
}
