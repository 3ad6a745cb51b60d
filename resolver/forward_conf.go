package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"hard/internal/wire"
)

// upConf is one configuration of the forwarder. Immutable.
type upConf struct {
	all      []*upstream // each once
	main     *upSet
	routes   []route // longest suffix first
	fastest  bool
	attempt  int64 // nanoseconds
	total    int64
	inflight int // queries that may wait
	cache    *cache
}

// upSet is an ordered list of upstreams that stand for one another.
type upSet struct{ ups []*upstream }

// route sends the names at and below suffix, a lower-case wire name, to set.
type route struct {
	suffix []byte
	set    *upSet
}

// SetUpstreams replaces the whole configuration of upstreams. Queries on their
// way end as they began; upstreams that stay keep their health and connections.
func (f *forwarder) SetUpstreams(o UpstreamOptions) error {
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		return context.Canceled
	}
	old := f.watchers
	f.opts = o
	f.watchers = make(map[string]*confWatcher)
	f.lists = make(map[string][]netip.AddrPort)
	for _, list := range serverLists(&o) {
		for _, s := range list {
			if s.Kind != ResolvConf || f.watchers[s.Path] != nil {
				continue
			}
			paths := f.confPaths
			if s.Path != "" {
				paths = []string{s.Path}
			}
			w := newConfWatcher(f.log, paths, o.Self, o.SavedServers)
			f.watchers[s.Path], f.lists[s.Path] = w, w.servers
			if f.started {
				w.start(func(list []netip.AddrPort) { f.listChanged(s.Path, list) })
			}
			if w.source != "" && w.source != lastGoodList && o.SaveServers != nil {
				o.SaveServers(slices.Clone(w.servers))
			}
		}
	}
	dropped, err := f.rebuildLocked()
	f.mu.Unlock()
	for _, w := range old { // not under mu: it may be waiting for it in onList
		w.stop()
	}
	f.dropUpstreams(dropped)
	f.kickProber()
	return err
}

// listChanged takes a new list of a resolv.conf file into use.
func (f *forwarder) listChanged(path string, servers []netip.AddrPort) {
	f.mu.Lock()
	if f.stopped || f.watchers[path] == nil {
		f.mu.Unlock()
		return
	}
	f.lists[path] = slices.Clone(servers)
	save := f.opts.SaveServers
	dropped, err := f.rebuildLocked()
	f.mu.Unlock()
	if err != nil {
		f.log.Error("the new list of upstreams can't be used; the old one stays", "error", err)
	}
	f.dropUpstreams(dropped)
	f.kickProber()
	if save != nil {
		save(slices.Clone(servers))
	}
}

// rebuildLocked publishes the configuration made of f.opts and f.lists, and
// returns the upstreams that are no longer in it.
func (f *forwarder) rebuildLocked() (dropped []*upstream, err error) {
	o := &f.opts
	before := f.conf.Load()
	c := &upConf{
		fastest:  o.Fastest,
		attempt:  int64(orDefault(o.AttemptTimeout, defaultAttempt)),
		total:    int64(orDefault(o.TotalTimeout, defaultTotal)),
		inflight: o.MaxInflight,
	}
	if c.inflight <= 0 {
		c.inflight = defaultInflight
	}
	known := make(map[string]*upstream)
	if before != nil {
		for _, u := range before.all {
			known[u.dests] = u
		}
		c.cache = before.cache.forOptions(o.Cache)
	} else {
		c.cache = (*cache)(nil).forOptions(o.Cache)
	}
	used := make(map[string]*upstream)
	c.main = f.makeSet(c, o.Servers, known, used)
	for _, r := range o.Routes {
		suffix, err := wire.AppendName(nil, r.Suffix)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Suffix, err)
		}
		c.routes = append(c.routes, route{suffix, f.makeSet(c, r.Servers, known, used)})
	}
	slices.SortStableFunc(c.routes, func(a, b route) int { return len(b.suffix) - len(a.suffix) })
	for key, u := range known {
		if used[key] != u {
			dropped = append(dropped, u)
		}
	}
	f.conf.Store(c)
	return dropped, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func serverLists(o *UpstreamOptions) [][]Server {
	lists := [][]Server{o.Servers}
	for _, r := range o.Routes {
		lists = append(lists, r.Servers)
	}
	return lists
}

// makeSet finds or makes the upstreams of one list.
func (f *forwarder) makeSet(c *upConf, list []Server, known, used map[string]*upstream) *upSet {
	set := &upSet{}
	add := func(s Server) {
		key := serverKey(s)
		u := used[key]
		if u == nil {
			self := s.Kind != HTTPS && isSelf(s.Addr, f.opts.Self)
			if u = known[key]; u == nil || u.self != self {
				u = f.newUpstream(s, self)
				if self {
					f.log.Warn("upstream is ourselves; not used", "upstream", u.text)
				}
			}
			used[key] = u
			c.all = append(c.all, u)
		}
		if len(set.ups) < maxSetSize && !slices.Contains(set.ups, u) {
			set.ups = append(set.ups, u)
		}
	}
	for _, s := range list {
		if s.Kind != ResolvConf {
			add(s)
			continue
		}
		for _, ap := range f.lists[s.Path] {
			add(plainServer(ap))
		}
	}
	return set
}

// dropUpstreams lets go of what upstreams outside the configuration hold, as
// soon as the queries that are on their way by the old one have ended.
func (f *forwarder) dropUpstreams(dropped []*upstream) {
	for _, u := range dropped {
		for _, l := range f.lanes {
			l.mu.Lock()
			l.dropPool(u)
			l.mu.Unlock()
		}
		u.stream.reset()
	}
	if len(dropped) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	patience := orDefault(f.opts.TotalTimeout, defaultTotal) + time.Second
	if f.stopped || !f.started {
		patience = 0
	} else {
		f.wg.Add(1)
	}
	closeAll := func() {
		for _, u := range dropped {
			u.stream.close()
			for _, l := range f.lanes { // retries may have opened more
				l.mu.Lock()
				l.dropPool(u)
				l.mu.Unlock()
			}
		}
	}
	if patience == 0 {
		closeAll()
		return
	}
	go func() {
		defer f.wg.Done()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.done:
		}
		closeAll()
	}()
}

// setFor returns the upstreams for a lower-case wire name.
func (c *upConf) setFor(name []byte) *upSet {
	for i := range c.routes {
		if wire.Below(name, c.routes[i].suffix) {
			return c.routes[i].set
		}
	}
	return c.main
}
