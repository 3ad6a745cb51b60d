package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"hard/internal/rank"
)

// jitter is what the prober adds to and takes from every distance between probes, as a share of it.
const jitter = 0.1

// fleet is the number of hosts whose probes are added up, so that the owner of a candidate can be asked.
const fleet = 1000

// Detection is how long a dead endpoint can stay unnoticed, in the worst case: it dies right
// after it has answered a probe.
//
// With interval I and fast_interval F, each up to 10 % longer by jitter, and timeout T:
//
//	refused = 1.1 I + (fall-1) x 1.1 F
//
// since the next steady probe comes within 1.1 I and fails at once, and each further miss that the verdict
// needs comes within 1.1 F.
//
//	silent = 1.1 I + (fall-1) x max(1.1 F, T + F) + T
//
// since a probe of a silent endpoint ends with its timeout only, and the next one rests for F after that (package
// prober says why). At the defaults that is 2.5 s and 4.5 s.
//
// A name that nobody has asked for since idle_after has idle_interval in the place of I till it is asked
// for. With watch = true the selected endpoint's death is seen at once where it breaks a connection.
type Detection struct {
	Refused, Silent time.Duration
}

// DetectionTime returns the worst case of an endpoint that is probed at pace p.
func DetectionTime(p *rank.Pace) Detection {
	stretch := func(d time.Duration) time.Duration { return d + time.Duration(float64(d)*jitter) }
	steady, fast := stretch(p.Interval), stretch(p.FastInterval)
	more := time.Duration(p.Fall - 1)
	return Detection{
		Refused: steady + more*fast,
		Silent:  steady + more*max(fast, p.Timeout+p.FastInterval) + p.Timeout,
	}
}

// FleetRate returns how many probes a second 1,000 hosts send to each address that they probe at pace p
// while it is steady. Jitter does not change the mean.
func FleetRate(p *rank.Pace) float64 {
	return fleet / p.Interval.Seconds()
}

// Summary is what there is to say about a valid configuration.
type Summary struct {
	File       string
	Names      int
	Candidates int
	Upstreams  int // distinct entries of [upstream] and of all routes
	PerName    []NameSummary
}

// NameSummary is one name's part of it.
type NameSummary struct {
	Name      string
	Static    bool // nothing is probed
	Watch     bool
	Detection Detection
	FleetRate float64 // probes a second to each address, from 1,000 hosts
}

// Summary counts what c holds and works out what its paces mean.
func (c *Config) Summary() Summary {
	s := Summary{File: c.File, Names: len(c.Names), PerName: make([]NameSummary, len(c.Names))}
	var servers []Server
	add := func(list []Server) {
		for _, v := range list {
			if !slices.ContainsFunc(servers, v.same) {
				servers = append(servers, v)
			}
		}
	}
	add(c.Upstream.Servers)
	for _, r := range c.Routes {
		add(r.Servers)
	}
	s.Upstreams = len(servers)
	for i := range c.Names {
		n := &c.Names[i]
		s.Candidates += len(n.Candidates)
		probed := slices.ContainsFunc(n.Candidates, func(c Candidate) bool { return c.Check.Kind != CheckStatic })
		s.PerName[i] = NameSummary{Name: n.Name, Static: !probed}
		if probed {
			s.PerName[i].Watch = n.Watch
			s.PerName[i].Detection, s.PerName[i].FleetRate = DetectionTime(n.Pace), FleetRate(n.Pace)
		}
	}
	return s
}

// describe is what a name's line says behind the name.
func (n *NameSummary) describe() string {
	if n.Static {
		return "static, never probed: a dead endpoint is not noticed"
	}
	watch := ""
	if n.Watch {
		watch = ", at once where a watched connection breaks"
	}
	return fmt.Sprintf("a dead endpoint is out within %s (refused), %s (silent)%s; 1,000 hosts send each address %s probes/s",
		secondsText(n.Detection.Refused), secondsText(n.Detection.Silent), watch, rateText(n.FleetRate))
}

// secondsText rounds up, as a worst case must be, to what a person reads at a glance.
func secondsText(d time.Duration) string {
	unit, name := time.Millisecond, "ms"
	if d >= time.Second {
		unit, name = time.Second/10, "s"
	}
	n := int64((d + unit - 1) / unit)
	if name == "ms" {
		return strconv.FormatInt(n, 10) + " ms"
	}
	return strconv.FormatFloat(float64(n)/10, 'f', -1, 64) + " s"
}

func rateText(r float64) string {
	if r >= 10 {
		return strconv.FormatFloat(r, 'f', 0, 64)
	}
	return strconv.FormatFloat(r, 'g', 2, 64)
}

// maxNameLines is how many names are listed one by one; beyond, those of a kind share a line.
const maxNameLines = 20

// WriteText writes the line that scripts look for, and below it what it means for each name.
func (s Summary) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ok (%d names, %d candidates, %d upstreams)\n", Visible(s.File), s.Names, s.Candidates, s.Upstreams)
	if len(s.PerName) <= maxNameLines {
		for i := range s.PerName {
			fmt.Fprintf(&b, "%s: %s\n", s.PerName[i].Name, s.PerName[i].describe())
		}
	} else {
		s.writeGroups(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeGroups writes one line for all names of a kind, the largest group first.
func (s Summary) writeGroups(b *strings.Builder) {
	type group struct {
		first string
		n     int
		like  NameSummary
	}
	index := map[NameSummary]int{}
	var groups []group
	for i := range s.PerName {
		like := s.PerName[i]
		like.Name = ""
		n, ok := index[like]
		if !ok {
			n = len(groups)
			index[like] = n
			groups = append(groups, group{first: s.PerName[i].Name, like: like})
		}
		groups[n].n++
	}
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(b.n, a.n) })
	for i := range groups {
		g := &groups[i]
		who := g.first
		if g.n > 1 {
			who = fmt.Sprintf("%d names like %s", g.n, g.first)
		}
		fmt.Fprintf(b, "%s: %s\n", who, g.like.describe())
	}
}

// summaryJSON is the machine's form. Times are in milliseconds.
type summaryJSON struct {
	reportJSON
	Names      int        `json:"names"`
	Candidates int        `json:"candidates"`
	Upstreams  int        `json:"upstreams"`
	PerName    []nameJSON `json:"per_name"`
}

type nameJSON struct {
	Name      string  `json:"name"`
	Static    bool    `json:"static,omitempty"`
	Watch     bool    `json:"watch,omitempty"`
	RefusedMS float64 `json:"refused_ms,omitempty"`
	SilentMS  float64 `json:"silent_ms,omitempty"`
	FleetRate float64 `json:"probes_per_s_from_1000_hosts,omitempty"`
}

func (s Summary) json(r Report) summaryJSON {
	out := summaryJSON{r.json(), s.Names, s.Candidates, s.Upstreams, make([]nameJSON, len(s.PerName))}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	for i, n := range s.PerName {
		out.PerName[i] = nameJSON{n.Name, n.Static, n.Watch, ms(n.Detection.Refused), ms(n.Detection.Silent), n.FleetRate}
	}
	return out
}

// CheckFile validates a file and writes all problems and, if it is valid, the summary: as text, or
// as one JSON object. strict makes warnings fail. more can add warnings that this package cannot know of;
// each is called once, with a valid configuration. The exit code is 0 or 1.
func CheckFile(file string, strict, asJSON bool, w io.Writer, more ...func(*Config, *Report)) (exit int) {
	c, report := Load(file)
	if c != nil {
		for _, f := range more {
			f(c, &report)
		}
	}
	if c == nil || strict && len(report.Problems) > 0 {
		exit = 1
	}
	if err := writeCheck(c, report, exit, asJSON, w); err != nil {
		return 1
	}
	return exit
}

// writeCheck writes what CheckFile found.
func writeCheck(c *Config, report Report, exit int, asJSON bool, w io.Writer) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if c == nil {
			return e.Encode(report)
		}
		return e.Encode(c.Summary().json(report))
	}
	if err := report.WriteText(w); err != nil {
		return err
	}
	if exit != 0 {
		return nil
	}
	return c.Summary().WriteText(w)
}
