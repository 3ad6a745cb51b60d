package prober

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"hard/internal/rank"
)

// score is what an oracle that knows the whole script says of the answers of one name.
type score struct {
	asked    time.Duration               // time in which something lived and our own network was there
	dead     time.Duration               // of it, answered with a dead address
	deaths   [silent + 1]int             // of addresses while they were answered, by kind
	deadFor  [silent + 1][]time.Duration // how long each was answered on
	best     time.Duration               // sum of the best live latencies over asked - dead
	excess   time.Duration               // and of what the answer was above them, by more than the margins
	margin   time.Duration               // the same within the margins, where a switch would be needless
	trueBest time.Duration               // best and excess once more, with what loss costs (weather.true)
	trueOver time.Duration
	switches int
	needless int
	onLoss   int // switches away from a lossy site, whose probes failed
	moved    int // during a cut of our own network, or within afterCut after it
}

// afterCut is how long after a cut of our own network any change is still put down to it.
const afterCut = 10 * time.Second

// change is an answer of one name from a time on; an invalid address is no address.
type change struct {
	at   time.Duration
	addr netip.Addr
}

// judge scores the answers of one name whose candidates are given.
func (w *world) judge(candidates []netip.Addr, answers []change, end time.Duration, p *rank.Policy) (s score) {
	moments := []time.Duration{end}
	for i := range w.script {
		moments = append(moments, w.script[i].from, w.script[i].to)
	}
	for _, c := range answers {
		moments = append(moments, c.at)
	}
	for t := answers[0].at; t < end; t += time.Second {
		moments = append(moments, t) // what drifts is looked at every second
	}
	slices.Sort(moments)
	moments = slices.Compact(moments)
	spell := spell{score: &s}
	k := 0
	for i, from := range moments[:len(moments)-1] {
		if from < answers[0].at || from >= end {
			continue
		}
		for k+1 < len(answers) && answers[k+1].at <= from {
			k++
		}
		w.weigh(p, &s, &spell, candidates, answers[k].addr, from, moments[i+1])
	}
	spell.end()
	for i := 1; i < len(answers); i++ {
		w.judgeSwitch(&s, answers[i-1].addr, answers[i], p)
	}
	return s
}

// weigh adds a piece of time in which nothing changes, but for what drifts.
func (w *world) weigh(p *rank.Policy, s *score, sp *spell, candidates []netip.Addr, answer netip.Addr, from, to time.Duration) {
	middle, d := from+(to-from)/2, to-from
	best, trueBest := time.Duration(-1), time.Duration(math.MaxInt64)
	for _, a := range candidates {
		if x := w.at(middle, a); !x.dead && !x.ours {
			trueBest = min(trueBest, x.true)
			if best < 0 || x.whole < best {
				best = x.whole
			}
		}
	}
	if best < 0 {
		sp.drop()
		return
	}
	s.asked += d
	x := weather{dead: true}
	if answer.IsValid() {
		x = w.at(middle, answer)
	}
	if x.dead {
		s.dead += d
		sp.add(answer, x.how, d)
		return
	}
	sp.end()
	s.best += d * best / time.Second
	s.trueBest += d * trueBest / time.Second
	if beats(p, trueBest, x.true) {
		s.trueOver += d * (x.true - trueBest) / time.Second
	}
	if above := d * (x.whole - best) / time.Second; beats(p, best, x.whole) {
		s.excess += above
	} else {
		s.margin += above
	}
}

// beats tells whether a latency is lower than another by both margins.
func beats(p *rank.Policy, a, b time.Duration) bool {
	return b-a >= p.SwitchMin && float64(a) <= float64(b)*(1-p.SwitchRatio)
}

// spell is a time in which one dead address is answered.
type spell struct {
	*score
	addr netip.Addr
	how  effect
	long time.Duration
}

func (s *spell) add(a netip.Addr, how effect, d time.Duration) {
	if s.long > 0 && s.addr != a {
		s.end()
	}
	if s.long == 0 {
		s.addr, s.how = a, how
	}
	s.long += d
}

func (s *spell) end() {
	if s.long > 0 {
		s.deaths[s.how]++
		s.deadFor[s.how] = append(s.deadFor[s.how], s.long)
	}
	s.long = 0
}

// drop forgets a spell that a cut of our own network or the death of all interrupted.
func (s *spell) drop() { s.long = 0 }

// judgeSwitch looks whether a change of the answer was called for. It was if the old one was dead,
// or had been slower by the margins, in the mean over hold; a quarter of the margins is allowed
// for errors of measurement.
func (w *world) judgeSwitch(s *score, old netip.Addr, c change, p *rank.Policy) {
	s.switches++
	if w.ownTrouble(c.at) {
		s.moved++
		return
	}
	if !old.IsValid() || !c.addr.IsValid() {
		return
	}
	var was, is time.Duration
	dead, loss := false, false
	const step = 100 * time.Millisecond
	n := time.Duration(0)
	for t := max(0, c.at-p.Hold-p.Hold/2); t <= c.at; t += step {
		x := w.at(t, old)
		dead, loss = dead || x.dead, loss || x.loss > 0
		if t >= c.at-p.Hold {
			was, is, n = was+x.whole, is+w.at(t, c.addr).whole, n+1
		}
	}
	was, is = was/n, is/n
	switch {
	case dead:
	case was-is >= p.SwitchMin*3/4 && float64(is) <= float64(was)*(1-p.SwitchRatio*0.75):
	case loss:
		s.onLoss++
	default:
		s.needless++
	}
}

func (w *world) ownTrouble(t time.Duration) bool {
	return slices.ContainsFunc(w.script, func(x trouble) bool {
		return x.what.ours() && t >= x.from && t < x.to+afterCut
	})
}

// add sums scores up.
func (s *score) add(o *score) {
	s.asked, s.dead, s.best = s.asked+o.asked, s.dead+o.dead, s.best+o.best
	s.excess, s.margin = s.excess+o.excess, s.margin+o.margin
	s.trueBest, s.trueOver = s.trueBest+o.trueBest, s.trueOver+o.trueOver
	s.switches, s.needless, s.onLoss, s.moved = s.switches+o.switches, s.needless+o.needless, s.onLoss+o.onLoss, s.moved+o.moved
	for i := range s.deaths {
		s.deaths[i] += o.deaths[i]
		s.deadFor[i] = append(s.deadFor[i], o.deadFor[i]...)
	}
}

// share is a part of the oracle's latency.
func (s *score) share(part time.Duration) float64 { return float64(part) / float64(max(s.best, 1)) }

// longer counts the deaths of these kinds whose address was answered for longer than a bound, by more than the margin of the model.
func (s *score) longer(bound time.Duration, kinds ...effect) (n int) {
	for _, k := range kinds {
		for _, d := range s.deadFor[k] {
			if d > bound+100*time.Millisecond {
				n++
			}
		}
	}
	return n
}

// spells returns median and worst of how long dead addresses of these kinds were answered.
func (s *score) spells(kinds ...effect) (median, worst, sum time.Duration, n int) {
	var all []time.Duration
	for _, k := range kinds {
		all = append(all, s.deadFor[k]...)
	}
	if len(all) == 0 {
		return 0, 0, 0, 0
	}
	slices.SortFunc(all, cmp.Compare[time.Duration])
	for _, d := range all {
		sum += d
	}
	return all[len(all)/2], all[len(all)-1], sum, len(all)
}
