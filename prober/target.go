package prober

import (
	"net/netip"
	"slices"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// jobID tells which targets may share one probe: the same check of the same address, with the
// same patience.
type jobID struct {
	fingerprint uint64
	addr        netip.Addr
	timeout     time.Duration
	only        string // name and candidate, where what the probe does depends on them
}

// idOf returns the identity of a target's probe.
func idOf(t *Target) jobID {
	id := jobID{t.Check.Fingerprint, t.Key.Addr, t.Pace.Timeout, ""}
	if t.Check.Kind == config.CheckExec || t.Check.Host == "" {
		id.only = t.Key.Name + "/" + t.Key.Candidate
	}
	return id
}

// job is one probe on the schedule, for one endpoint or for several that share it.
type job struct {
	queued // place in the heap; not in it while running or waiting for a slot
	// immutable
	id     jobID
	check  *config.Check
	offset uint32 // hash: the job's place in its interval, in 1/2^32

	prepared *prepared // owned by the running probe; built by the first one

	// guarded by Prober.mu
	members  []*member
	keys     []rank.Key // of the members; replaced, never changed in place
	every    time.Duration
	done     chan struct{} // closed to abort the running probe
	canceled bool          // done is closed
	started  moment        // start of the last probe
	planned  moment        // the same, but no earlier than it was due
	jitter   float64       // of the interval from there on, as a part of it
	floor    moment        // not before this: the server asked us to slow down
	running  bool
	ending   bool // running, but its result is out
	waiting  bool // in Prober.ready
	again    bool // once more as soon as the running probe has ended
	probed   bool // a probe has ended
	aligned  bool // has been put on its hash offset
	burst    int  // further probes to run back to back while they find a refusal
	watch    *watcher
}

// member is one endpoint of a job.
type member struct {
	key   rank.Key
	pace  *rank.Pace
	every time.Duration // as the engine set it; 0: not yet
	watch bool
	job   *job
	keep  bool // scratch of SetName
}

// interval is the pace of a member: the engine's word, until then fast for the first verdict and
// the steady interval after it.
func (m *member) interval() time.Duration {
	switch {
	case m.every > 0:
		return m.every
	case !m.job.probed && m.pace.FastInterval > 0:
		return min(m.pace.FastInterval, m.pace.Interval)
	}
	return m.pace.Interval
}

// refreshLocked recomputes what follows from the members.
func (j *job) refreshLocked() {
	j.every = never
	for _, m := range j.members {
		j.every = min(j.every, max(m.interval(), time.Millisecond))
	}
}

func (j *job) rekeyLocked() {
	keys := make([]rank.Key, len(j.members))
	for i, m := range j.members {
		keys[i] = m.key
	}
	j.keys = keys
	j.refreshLocked()
}

func (j *job) cancelLocked() {
	if !j.canceled {
		j.canceled = true
		close(j.done)
	}
}

// SetName replaces the whole set of targets of one name; nil removes it. Targets whose check is
// unchanged keep their schedule, their pace and their connections.
func (p *Prober) SetName(name string, targets []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	old := p.names[name]
	for _, m := range old {
		m.keep = false
	}
	set := make([]*member, 0, len(targets))
	for i := range targets {
		set = append(set, p.targetLocked(&targets[i]))
	}
	for _, m := range old {
		if !m.keep {
			p.detachLocked(m)
		}
	}
	if len(set) == 0 {
		delete(p.names, name)
	} else {
		p.names[name] = set
	}
	p.armLocked()
}

// targetLocked finds or makes the member of one target.
func (p *Prober) targetLocked(t *Target) *member {
	id := idOf(t)
	m := p.members[t.Key]
	if m != nil && m.job.id != id {
		p.detachLocked(m)
		m = nil
	}
	if m == nil {
		m = &member{key: t.Key, pace: t.Pace}
		p.members[t.Key] = m
		p.attachLocked(m, t.Check, id)
	} else if *m.pace != *t.Pace {
		// The engine sets the pace anew after the next sample, which must not be far off.
		m.every = min(m.every, t.Pace.Interval)
		m.pace = t.Pace
		m.job.refreshLocked()
		p.repaceLocked(m.job)
	}
	m.pace, m.watch, m.keep = t.Pace, t.Watch, true
	p.watchLocked(m.job)
	return m
}

// attachLocked puts a member on the job of its check. A first verdict is wanted at once.
func (p *Prober) attachLocked(m *member, check *config.Check, id jobID) {
	j := p.jobs[id]
	if j == nil {
		j = &job{id: id, check: check, offset: p.offset(id), done: make(chan struct{})}
		p.jobs[id] = j
	}
	m.job = j
	j.members = append(j.members, m)
	j.rekeyLocked()
	if !j.running && !j.waiting {
		p.heap.set(j, p.firstSlotLocked())
	}
}

// detachLocked takes a member off its job; a job without members ends.
func (p *Prober) detachLocked(m *member) {
	delete(p.members, m.key)
	m.keep = true // done with
	j := m.job
	j.members = slices.DeleteFunc(j.members, func(o *member) bool { return o == m })
	j.rekeyLocked()
	p.watchLocked(j)
	if len(j.members) > 0 {
		return
	}
	p.heap.remove(j)
	if j.running || j.waiting {
		j.cancelLocked() // the end of the probe removes the job
		return
	}
	delete(p.jobs, j.id)
}

// SetInterval sets how often an endpoint is probed from its last start on, +-10 %.
func (p *Prober) SetInterval(key rank.Key, every time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.members[key]
	if m == nil || m.every == every {
		return
	}
	m.every = every
	was := m.job.every
	m.job.refreshLocked()
	if m.job.every != was {
		p.repaceLocked(m.job)
		p.armLocked()
	}
}

// ProbeNow starts the probes of these endpoints at once, where none runs.
func (p *Prober) ProbeNow(keys ...rank.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, key := range keys {
		if m := p.members[key]; m != nil {
			p.probeNowLocked(m.job, now)
		}
	}
	p.armLocked()
}

func (p *Prober) probeNowLocked(j *job, now moment) {
	if j.running || j.waiting {
		j.again = j.again || j.ending // who has seen the result wants another one
		return
	}
	if j.pos == 0 || j.due > now {
		p.heap.set(j, now)
	}
}
