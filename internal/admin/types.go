package admin

import (
	"net/netip"
	"time"

	"hard/internal/rank"
)

// The types of the control API, version 1 (docs/api.md). Fields are only ever added. Durations
// are in milliseconds, fields named _ms; times are RFC 3339.

// Status is GET /v1/status and /status.json.
type Status struct {
	Version    string     `json:"version"`
	PID        int        `json:"pid"`
	Started    time.Time  `json:"started"`
	At         time.Time  `json:"at"`
	Config     ConfigInfo `json:"config"`
	Listen     ListenInfo `json:"listen"`
	LogLevel   string     `json:"log_level"`
	LocalFault bool       `json:"local_fault"`
	Names      []Name     `json:"names"`
	Upstreams  []Upstream `json:"upstreams"`
	Store      Store      `json:"store"`
	Prober     Prober     `json:"prober"`
	Overrides  []Override `json:"overrides"`
}

// ConfigInfo is the configuration in force.
type ConfigInfo struct {
	File       string    `json:"file"`
	Loaded     time.Time `json:"loaded"`
	ReloadOK   bool      `json:"reload_ok"`
	ReloadFail string    `json:"reload_error,omitempty"`
	Candidates int       `json:"candidates"`
}

// ListenInfo is where we serve.
type ListenInfo struct {
	DNS     []netip.AddrPort `json:"dns"`
	HTTP    string           `json:"http"`
	Control string           `json:"control"`
}

// Name is one name: what it answers, and the decision behind it.
type Name struct {
	Name      string            `json:"name"`
	AllDown   bool              `json:"all_down"`
	Healthy   int               `json:"healthy"` // endpoints that are healthy, or forced up
	Answers   map[string]Answer `json:"answers"` // by type, A and AAAA
	Endpoints []Endpoint        `json:"endpoints"`
}

// Answer is what a name answers for one type.
type Answer struct {
	Kind      rank.Kind    `json:"kind"`
	Addresses []netip.Addr `json:"addresses"`
	Rotate    bool         `json:"rotate,omitempty"`
	Tier      int          `json:"tier"`
	Reason    string       `json:"reason"`
}

// Endpoint is one endpoint with its part of the decision. A zero time or duration is left out.
type Endpoint struct {
	Candidate   string        `json:"candidate"`
	Address     netip.Addr    `json:"address"`
	Type        string        `json:"type"` // A or AAAA
	State       rank.State    `json:"state"`
	Override    rank.Override `json:"override"`
	Tier        int           `json:"tier"`
	Weight      int           `json:"weight"`
	Rank        int           `json:"rank"`
	Eligible    bool          `json:"eligible"`
	Selected    bool          `json:"selected"`
	LatencyMS   float64       `json:"latency_ms,omitempty"` // the estimate that ranks it
	ConnectMS   float64       `json:"connect_ms,omitempty"`
	FirstByteMS float64       `json:"first_byte_ms,omitempty"`
	TotalMS     float64       `json:"total_ms,omitempty"`
	LastOutcome string        `json:"last_outcome,omitempty"`
	Successes   int           `json:"successes"` // in a row
	Failures    int           `json:"failures"`  // in a row
	Held        bool          `json:"held,omitempty"`
	Warm        bool          `json:"warm,omitempty"`
	Since       time.Time     `json:"since,omitzero"`
	Checked     time.Time     `json:"checked,omitzero"`
	Reason      string        `json:"reason"`
}

// Upstream is one resolver that queries are forwarded to.
type Upstream struct {
	Upstream string            `json:"upstream"`
	State    string            `json:"state"`
	RTTMS    float64           `json:"rtt_ms,omitempty"`
	Queries  uint64            `json:"queries"`
	Rcodes   map[string]uint64 `json:"rcodes"`
	Failures map[string]uint64 `json:"failures"`
	Strays   uint64            `json:"strays"`
	Inflight int               `json:"inflight"`
	LastSeen time.Time         `json:"last_seen,omitzero"`
}

// Store is how the history does.
type Store struct {
	State       string            `json:"state"`
	Reason      string            `json:"reason,omitempty"`
	Path        string            `json:"path"`
	Queued      int               `json:"queued"`
	Written     uint64            `json:"written"`
	Dropped     map[string]uint64 `json:"dropped"`
	WriteErrors uint64            `json:"write_errors"`
	SizeBytes   int64             `json:"size_bytes"`
	LastCommit  time.Time         `json:"last_commit,omitzero"`
}

// Prober is how the probing does.
type Prober struct {
	Scheduled int               `json:"scheduled"`
	Running   int               `json:"running"`
	Waiting   int               `json:"waiting"`
	Watching  int               `json:"watching"`
	Delayed   uint64            `json:"delayed"`
	LagAvgMS  float64           `json:"lag_avg_ms"`
	LagMaxMS  float64           `json:"lag_max_ms"`
	Outcomes  map[string]uint64 `json:"outcomes"`
}

// Override is what an operator forced on a candidate.
type Override struct {
	Name      string    `json:"name"`
	Candidate string    `json:"candidate"`
	What      string    `json:"what"`  // state or weight
	Value     string    `json:"value"` // up, down, drain; 50 or 50%; auto: nothing is forced any more
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Who       string    `json:"who,omitempty"`
	Why       string    `json:"why,omitempty"`
}

// Explain is GET /v1/explain/{name}: the very decision that made the answer.
type Explain struct {
	At         time.Time  `json:"at"`
	LocalFault bool       `json:"local_fault"`
	Policy     Policy     `json:"policy"`
	Next       time.Time  `json:"next,omitzero"` // without new input nothing changes before this time
	Name                  // with the answers of the types asked for
	Overrides  []Override `json:"overrides"`
}

// Policy is how a name selects.
type Policy struct {
	Select        string  `json:"select"`
	Latency       string  `json:"latency"`
	GroupWithinMS float64 `json:"group_within_ms"`
	MaxLatencyMS  float64 `json:"max_latency_ms"`
	SwitchRatio   float64 `json:"switch_ratio"`
	SwitchMinMS   float64 `json:"switch_min_ms"`
	HoldMS        float64 `json:"hold_ms"`
	Families      string  `json:"families"`
	MaxAnswers    int     `json:"max_answers"`
	OnAllDown     string  `json:"on_all_down"`
	MinHealthy    int     `json:"min_healthy"`
}

// SetRequest is POST /v1/set.
type SetRequest struct {
	Name      string        `json:"name"`
	Candidate string        `json:"candidate,omitempty"` // "": all of the name
	State     rank.Override `json:"state"`
	For       Duration      `json:"for,omitempty"` // 0: until taken back
	Why       string        `json:"why,omitempty"`
	Force     bool          `json:"force,omitempty"`
}

// WeightRequest is POST /v1/weight.
type WeightRequest struct {
	Name      string   `json:"name"`
	Candidate string   `json:"candidate"`
	Weight    Weight   `json:"weight"`
	For       Duration `json:"for,omitempty"`
	Why       string   `json:"why,omitempty"`
	Force     bool     `json:"force,omitempty"`
}

// Forced is the reply to a SetRequest or WeightRequest.
type Forced struct {
	Overrides []Override `json:"overrides"`         // what holds now, by candidate
	Warning   string     `json:"warning,omitempty"` // it is in force, but would not survive a restart
}

// ProbeRequest is POST /v1/probe.
type ProbeRequest struct {
	Name      string `json:"name"`
	Candidate string `json:"candidate,omitempty"` // "": all of the name
	Trace     bool   `json:"trace,omitempty"`
}

// Probed is the reply to a ProbeRequest.
type Probed struct {
	Name   string  `json:"name"`
	Probes []Probe `json:"probes"`
}

// Probe is one probe; its phases count from the start of the connect.
type Probe struct {
	Candidate   string       `json:"candidate"`
	Address     netip.Addr   `json:"address"`
	At          time.Time    `json:"at"`
	Outcome     rank.Outcome `json:"outcome"`
	Status      int          `json:"status,omitempty"`
	ConnectMS   float64      `json:"connect_ms,omitempty"`
	TLSMS       float64      `json:"tls_ms,omitempty"`
	FirstByteMS float64      `json:"first_byte_ms,omitempty"`
	TotalMS     float64      `json:"total_ms"`
	Detail      string       `json:"detail,omitempty"`
	Trace       []TraceLine  `json:"trace,omitempty"`
}

// TraceLine is one step of a traced probe.
type TraceLine struct {
	AtMS float64 `json:"at_ms"`
	Dir  string  `json:"dir"` // ">" sent, "<" received, "*" remark
	Text string  `json:"text"`
}

// LogRequest is POST /v1/log.
type LogRequest struct {
	Level string `json:"level"`
}

// LogReply is the reply to a LogRequest.
type LogReply struct {
	Level string `json:"level"`
	Was   string `json:"was"`
}

// Reloaded is the reply to POST /v1/reload; with status 422 where the configuration was refused.
type Reloaded struct {
	Reloaded bool      `json:"reloaded"`
	File     string    `json:"file"`
	Error    string    `json:"error,omitempty"` // why not, where it is not the file's fault
	Problems []Problem `json:"problems"`        // warnings, too
}

// Problem is one thing to be said about the configuration file.
type Problem struct {
	Line       int    `json:"line"`
	Col        int    `json:"col"`
	Severity   string `json:"severity"` // error or warning
	Path       string `json:"path,omitempty"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"` // what was probably meant
	Text       string `json:"text"`                 // all of it as one line, as -check prints it
}

// Stats is GET /v1/stats.
type Stats struct {
	At         time.Time         `json:"at"`
	Started    time.Time         `json:"started"`
	Queries    uint64            `json:"queries"`   // that were answered
	BySource   map[string]uint64 `json:"by_source"` // local, forward, cache, stale, special, error
	ByProtocol map[string]uint64 `json:"by_proto"`  // udp, tcp
	ByRcode    map[string]uint64 `json:"by_rcode"`
	Dropped    uint64            `json:"dropped"`   // packets that deserve no answer
	Lost       uint64            `json:"lost"`      // replies that the kernel did not take
	Loops      uint64            `json:"loops"`     // our own queries that came back
	Panics     uint64            `json:"panics"`    // caught
	TCPConns   int               `json:"tcp_conns"` // open now
	Goroutines int               `json:"goroutines"`
	HeapBytes  uint64            `json:"heap_bytes"`
	LogDropped uint64            `json:"log_dropped"`
	Hooks      Hooks             `json:"hooks"`
	Upstreams  []Upstream        `json:"upstreams"`
	Store      Store             `json:"store"`
	Prober     Prober            `json:"prober"`
}

// Hooks is how the change hooks do.
type Hooks struct {
	Sent    uint64 `json:"sent"`
	Failed  uint64 `json:"failed"`
	Dropped uint64 `json:"dropped"`
}

// Error is the reply to what could not be done.
type Error struct {
	Message string    `json:"error"`
	Hint    string    `json:"hint,omitempty"` // what to do about it
	From    time.Time `json:"from,omitzero"`  // of a past that is incomplete: the span that is missing
	To      time.Time `json:"to,omitzero"`
}

// Error is the error interface's.
func (e *Error) Error() string { return e.Message }
