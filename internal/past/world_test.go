package past

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/store"
)

// world drives a live engine, goroutine and all, with a history on disk, in simulated time.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	path   string
	store  *store.Store
	engine *engine.Engine
	texts  []string
	config *config.Config

	mu    sync.Mutex // guards what follows
	now   time.Time
	reply time.Time
	saved engine.Saved // what the recorder was given

	ends  map[rank.Key]bool // which endpoints are alive
	pace  map[rank.Key]time.Duration
	last  map[rank.Key]time.Time // the end of its last probe
	looks []look
}

// look is what the engine said of itself at an instant.
type look struct {
	at   time.Time
	name engine.NameView
}

func newWorld(t *testing.T, seed uint64, texts ...string) *world {
	return newWorldAt(t, time.Now().Add(-3*time.Hour).Round(0), seed, texts...)
}

func newWorldAt(t *testing.T, now time.Time, seed uint64, texts ...string) *world {
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 7)), path: filepath.Join(t.TempDir(), "hard.db"), texts: texts,
		now:  now,
		ends: make(map[rank.Key]bool), pace: make(map[rank.Key]time.Duration),
		last: make(map[rank.Key]time.Time),
	}
	w.saved = engine.Saved{Endpoints: map[rank.Key]engine.SavedEndpoint{}, Memories: map[string]rank.Memory{}, Addresses: map[engine.HostKey][]netip.Addr{}}
	w.store = store.Open(store.Options{Path: w.path, Now: w.clock})
	w.config = parseText(t, texts[0])
	w.start()
	return w
}

func parseText(t *testing.T, text string) *config.Config {
	t.Helper()
	c, report := config.Parse("test.toml", []byte(text))
	if c == nil {
		t.Fatal(report.Err())
	}
	return c
}

func (w *world) clock() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	w.mu.Unlock()
}

func (w *world) start() {
	w.t.Helper()
	w.store.PutConfig(w.config.Hash, w.config.Text)
	w.mu.Lock()
	saved := engine.Saved{Endpoints: maps.Clone(w.saved.Endpoints), Memories: maps.Clone(w.saved.Memories), Addresses: maps.Clone(w.saved.Addresses)}
	w.mu.Unlock()
	e, err := engine.New(engine.Options{
		Config: w.config, Saved: saved, Publisher: recorder{w}, Prober: recorder{w}, Recorder: recorder{w},
		LastReply: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.reply },
		Log:       slog.New(slog.DiscardHandler), Now: w.clock,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.engine = e
	e.Start()
}

func (w *world) end() {
	w.engine.Stop()
	if err := w.store.Close(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// history opens what was recorded.
func (w *world) history() *History {
	w.t.Helper()
	r, err := store.OpenReader(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { r.Close() })
	h, err := Open(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// look remembers what the engine says of itself, a little later: of several probes that one endpoint had in a
// millisecond the later ones are kept as of the next, which an instant before it would not see.
func (w *world) look() {
	w.pass(3 * time.Millisecond)
	s, err := w.engine.Snapshot(context.Background(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.looks = append(w.looks, look{s.At, s.Names[w.rnd.IntN(len(s.Names))]})
}

// probe is a probe of a random endpoint that ended about now. One that is refused may be followed
// by others at once, several in a millisecond, as those of a watched connection that breaks are.
func (w *world) probe(keys []rank.Key) {
	k := keys[w.rnd.IntN(len(keys))]
	for w.probeOf(k) == rank.Refused && w.rnd.IntN(2) == 0 {
		w.pass(time.Duration(450+w.rnd.IntN(100)) * time.Microsecond)
	}
}

func (w *world) probeOf(k rank.Key) rank.Outcome {
	if w.rnd.IntN(60) == 0 {
		w.ends[k] = !w.ends[k]
	}
	if w.pace[k] == 0 || w.rnd.IntN(40) == 0 {
		w.pace[k] = time.Duration(1+w.rnd.IntN(40)) * time.Millisecond
	}
	s := rank.Sample{Key: k, Final: true, Try: 0}
	total := w.pace[k] + time.Duration(w.rnd.IntN(3_000_000))
	switch {
	case !w.ends[k]:
		s.Status, s.Phases = 200, rank.Phases{Connect: total / 3, FirstByte: total / 2, Total: total}
	case w.rnd.IntN(3) == 0:
		s.Outcome, s.Phases.Total, s.Detail = rank.Refused, 40*time.Microsecond, "connection refused"
	default:
		s.Outcome, s.Phases.Total = rank.Timeout, time.Second
	}
	s.Delayed = w.rnd.IntN(50) == 0
	s.At = w.clock().Add(-s.Phases.Total - time.Duration(w.rnd.IntN(400_000)))
	if s.At.Before(w.last[k]) {
		return s.Outcome // probes of one endpoint never overlap
	}
	w.last[k] = s.End()
	w.engine.Sample(s)
	return s.Outcome
}

// run lets n random things happen.
func (w *world) run(n int) {
	ctx := context.Background()
	host := engine.HostKey{Name: "dns.example", Candidate: "backend.example.net"}
	for range n {
		w.pass(time.Duration(w.rnd.IntN(60)) * time.Millisecond)
		keys := w.keys()
		switch w.rnd.IntN(400) {
		case 0:
			addrs := make([]netip.Addr, w.rnd.IntN(4))
			for i := range addrs {
				addrs[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + w.rnd.IntN(6))})
			}
			slices.SortFunc(addrs, netip.Addr.Compare)
			w.engine.Addresses(host, slices.Compact(addrs), nil, true)
		case 1:
			k := keys[w.rnd.IntN(len(keys))]
			o := engine.Override{Host: engine.HostKey{Name: k.Name}, State: rank.Override(w.rnd.IntN(4)), Weight: -1}
			if w.rnd.IntN(2) == 0 {
				o.Host.Candidate = k.Candidate
			}
			if w.rnd.IntN(2) == 0 {
				o.Until = w.clock().Add(time.Duration(w.rnd.IntN(20000)) * time.Millisecond)
			}
			_, _ = w.engine.Force(ctx, o, true) // a candidate may be gone by a reload
		case 2:
			if w.rnd.IntN(3) > 0 {
				break
			}
			c := parseText(w.t, w.texts[w.rnd.IntN(len(w.texts))])
			w.store.PutConfig(c.Hash, c.Text)
			if err := w.engine.Apply(ctx, c); err != nil {
				w.t.Fatal(err)
			}
			w.config = c
		case 3, 4, 5:
			w.mu.Lock()
			w.reply = w.now.Add(-time.Duration(w.rnd.IntN(100)) * time.Millisecond)
			w.mu.Unlock()
		case 6:
			w.pass(time.Duration(w.rnd.IntN(30)) * time.Second)
		case 7:
			if w.rnd.IntN(8) == 0 {
				w.engine.Stop()
				w.pass(time.Duration(1+w.rnd.IntN(100)) * time.Second)
				w.start()
			}
		case 8:
			for _, k := range keys { // our own network is cut
				w.ends[k] = w.rnd.IntN(2) == 0
			}
		case 9, 10, 11, 12:
			w.look()
		default:
			w.probe(keys)
		}
	}
	w.look()
}

// keys are the endpoints that may be probed now.
func (w *world) keys() (keys []rank.Key) {
	for i := range w.config.Names {
		n := &w.config.Names[i]
		for j := range n.Candidates {
			c := &n.Candidates[j]
			for _, a := range c.Addrs {
				keys = append(keys, rank.Key{Name: n.Name, Candidate: c.Label, Addr: a})
			}
			for a := range byte(6 * len(c.Hosts)) {
				keys = append(keys, rank.Key{Name: n.Name, Candidate: c.Label, Addr: netip.AddrFrom4([4]byte{192, 0, 2, 100 + a})})
			}
		}
	}
	return keys
}

// recorder is what the daemon puts between engine and store.
type recorder struct{ w *world }

func (r recorder) Record(s rank.Sample) { r.w.store.Record(s) }
func (r recorder) Event(e engine.Event) {
	r.w.store.Event(store.Event{At: e.At, Key: e.Key, Kind: e.Kind, Old: e.Old, New: e.New, Reason: e.Reason})
}
func (r recorder) Answer(a engine.AnswerChange) {
	r.w.store.Answer(store.AnswerChange{At: a.At, Name: a.Name, Type: a.Family.String(), Addresses: a.Addresses, Reason: a.Reason, First: a.First})
}
func (r recorder) Current(rows []engine.EndpointState) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	for i := range rows {
		if s := &rows[i]; !s.Health.Checked.IsZero() {
			r.w.saved.Endpoints[s.Key] = engine.SavedEndpoint{Health: s.Health, Fingerprint: s.Fingerprint, At: s.Health.Checked}
		}
	}
}
func (r recorder) Forget([]rank.Key) {}
func (r recorder) Memory(n string, m rank.Memory) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.saved.Memories[n] = m
}
func (r recorder) Addresses(h engine.HostKey, a []netip.Addr) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.saved.Addresses[h] = a
}
func (r recorder) Input(in engine.Input) { r.journal(in.At, string(in.Kind), &in) }
func (r recorder) Checkpoint(c *engine.Checkpoint) {
	r.journal(c.At, string(engine.InputCheckpoint), c)
	rows := make([]store.Checkpoint, len(c.Names))
	for i := range c.Names {
		rows[i] = store.Checkpoint{At: c.At, Name: c.Names[i].Name, Value: &c.Names[i]}
	}
	r.w.store.Checkpoint(rows...)
}
func (r recorder) journal(at time.Time, kind string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	r.w.store.Input(store.Input{At: at, Kind: kind, Data: text})
}
func (recorder) Publish(*answer.Table)               {}
func (recorder) SetName(string, []engine.Check)      {}
func (recorder) SetHosts([]engine.Host)              {}
func (recorder) SetInterval(rank.Key, time.Duration) {}
func (recorder) ProbeNow([]rank.Key)                 {}

// text is a configuration of names of every policy; hold and mode tell versions apart.
func text(hold, mode string) string {
	return fmt.Sprintf(`[upstream]
servers = ["127.0.0.9"]
[defaults]
check = "tcp://:80"
hold = "%s"
[name."best.example"]
candidates = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]
select = "%s"
[name."tiers.example".candidate.near]
address = ["192.0.2.11", "192.0.2.12"]
[name."tiers.example".candidate.far]
address = ["192.0.2.13", "2001:db8::13"]
tier = 1
[name."many.example"]
candidates = ["192.0.2.21", "192.0.2.22", "192.0.2.23", "192.0.2.24"]
max_answers = 2
max_latency = "25ms"
idle_after = "10s"
on_all_down = "all"
[name."dns.example"]
candidates = ["backend.example.net", "192.0.2.31"]
on_all_down = "nodata"
fall = 1
[name."fixed.example"]
candidates = ["192.0.2.41", "192.0.2.42"]
check = "static:"
`, hold, mode)
}

// String is a difference as a line of a test's log.
func (d *Difference) String() string {
	return fmt.Sprintf("%s %s %s: %v then, %v now, for %v", d.From.UTC().Format(time.RFC3339Nano), d.Name, d.Family, d.Then, d.Now, d.To.Sub(d.From))
}
