package admin

import (
	"fmt"
	"html/template"
	"math"
	"time"
)

// The chart of a name: a band for each endpoint, one over the other, with the same times and the
// same logarithmic scale, so that they can be compared without a legend of colours. It is made
// here and not by a script: it prints, it works with scripts off, and its text can be read out.
const (
	chartLeft   = 46 // for the scale's numbers
	chartRight  = 14
	bandLabel   = 26
	bandHeight  = 72
	bandGap     = 12
	chartBottom = 24 // for the times
	columnWidth = 2

	// Widths of the plot: text doesn't shrink with the screen, so a phone gets a chart of its own.
	chartWide   = 860
	chartNarrow = 290
)

type chart struct {
	until time.Time
	hours int
	plot  int // width of the plot, set by svg
	rows  []chartRow
	marks []mark
}

func (c *chart) columns() int { return c.plot / columnWidth }

type chartRow struct {
	label, address string
	selected       bool
	spans          []span
}

// mark is a change of the answer.
type mark struct {
	at    time.Time
	title string
}

// column is what one endpoint did in the time of one column.
type column struct {
	n, ok    int
	p50, p95 float64 // the highest of its spans; 0 = none was ok
}

// both gives the chart for large screens and the one for small ones; the style sheet shows one.
func (c *chart) both() template.HTML { return c.svg("wide", chartWide) + c.svg("narrow", chartNarrow) }

func (c *chart) svg(class string, plot int) template.HTML {
	c.plot = plot
	since := c.until.Add(-time.Duration(c.hours) * time.Hour).UnixMilli()
	perColumn := float64(c.hours) * 3.6e6 / float64(c.columns())
	table := make([][]column, len(c.rows))
	low, high := math.Inf(1), 0.0
	for i := range c.rows {
		table[i] = make([]column, c.columns())
		fillColumns(table[i], c.rows[i].spans, since, perColumn)
		for _, k := range table[i] {
			if k.p50 > 0 {
				low, high = min(low, k.p50), max(high, k.p95)
			}
		}
	}
	s := newScale(low, high)
	height := len(c.rows)*(bandLabel+bandHeight+bandGap) + chartBottom
	b := fmt.Appendf(nil, `<svg class="chart %s" viewBox="0 0 %d %d" role="img" aria-label="Latency of each endpoint, last %d h, in milliseconds">`,
		class, chartLeft+c.plot+chartRight, height, c.hours)
	b = c.times(b, since, height)
	for i := range c.rows {
		b = c.band(b, i, table[i], s)
	}
	for _, m := range c.marks {
		x := chartLeft + float64(m.at.UnixMilli()-since)/perColumn*columnWidth
		if x >= chartLeft {
			b = fmt.Appendf(b, `<g class="mark"><title>%s</title><path d="M%.1f 12V%d"/><path class="head" d="M%.1f 12l-4-7h8z"/></g>`,
				template.HTMLEscapeString(m.title), x, height-chartBottom, x)
		}
	}
	return template.HTML(append(b, "</svg>"...)) //nolint:gosec // all text in it is escaped
}

// fillColumns spreads the spans over the columns that they cover.
func fillColumns(t []column, spans []span, since int64, perColumn float64) {
	for _, s := range spans {
		first := int(math.Floor(float64(s.from-since) / perColumn))
		last := int(math.Ceil(float64(s.to-since)/perColumn)) - 1
		for i := max(first, 0); i <= min(max(last, first), len(t)-1); i++ {
			k := &t[i]
			k.n, k.ok = k.n+s.n, k.ok+s.ok
			k.p50, k.p95 = max(k.p50, s.p50), max(k.p95, s.p95)
		}
	}
}

// scale is logarithmic, between a 1, 2 or 5 below and above the values.
type scale struct{ low, high float64 }

func newScale(low, high float64) scale {
	if high <= 0 {
		return scale{1, 10}
	}
	s := scale{step125(low, false), step125(high, true)}
	if s.high/s.low < 4 {
		s.high = step125(s.low*4, true)
	}
	return s
}

// step125 is the nearest 1, 2 or 5 times a power of ten that is not above (not below) v.
func step125(v float64, up bool) float64 {
	v = max(v, 0.01)
	p := math.Pow(10, math.Floor(math.Log10(v)+1e-9))
	best := p
	for _, m := range []float64{1, 2, 5, 10} {
		switch {
		case up && m*p >= v*(1-1e-9):
			return m * p
		case !up && m*p <= v*(1+1e-9):
			best = m * p
		}
	}
	return best
}

// y is where a value is in a band, from its top.
func (s scale) y(v float64) float64 {
	f := math.Log(v/s.low) / math.Log(s.high/s.low)
	return bandHeight * (1 - min(max(f, 0), 1))
}

// times draws the vertical lines and their times, in UTC.
func (c *chart) times(b []byte, since int64, height int) []byte {
	every := map[int]time.Duration{1: 10 * time.Minute, 6: time.Hour, 24: 4 * time.Hour, 48: 8 * time.Hour}[c.hours]
	if every == 0 {
		every = (time.Duration(c.hours) * time.Hour / 6).Truncate(time.Hour)
		every = max(every, 30*time.Minute)
	}
	perPixel := float64(c.hours) * 3.6e6 / float64(c.plot)
	for t := time.UnixMilli(since).UTC().Truncate(every).Add(every); t.Before(c.until); t = t.Add(every) {
		x := chartLeft + float64(t.UnixMilli()-since)/perPixel
		b = fmt.Appendf(b, `<path class="grid" d="M%.1f %dV%d"/><text class="time" x="%.1f" y="%d">%s</text>`,
			x, bandLabel, height-chartBottom, x, height-6, t.Format("15:04"))
	}
	return b
}

// band draws one endpoint.
func (c *chart) band(b []byte, i int, t []column, s scale) []byte {
	r := &c.rows[i]
	top := i*(bandLabel+bandHeight+bandGap) + bandLabel
	class := "band"
	if r.selected {
		class = "band chosen"
	}
	address := r.address
	if address == r.label {
		address = ""
	}
	b = fmt.Appendf(b, `<g class="%s"><text class="who" x="%d" y="%d">%s <tspan>%s</tspan>%s</text><rect class="back" x="%d" y="%d" width="%d" height="%d"/>`,
		class, chartLeft, top-6, template.HTMLEscapeString(r.label), template.HTMLEscapeString(address), chosenText(r.selected),
		chartLeft, top, c.plot, bandHeight)
	for _, v := range []float64{s.low, math.Sqrt(s.low * s.high), s.high} {
		v = step125(v, false)
		y := float64(top) + s.y(v)
		b = fmt.Appendf(b, `<path class="grid" d="M%d %.1fh%d"/><text class="tick" x="%d" y="%.1f">%g</text>`, chartLeft, y, c.plot, chartLeft-5, y+3.5, v)
	}
	b = shades(b, t, top)
	return append(lines(b, t, s, top), "</g>"...)
}

func chosenText(selected bool) string {
	if selected {
		return " · answering"
	}
	return ""
}

// shades draws the failures: full height where all probes failed, the lower half where some did.
func shades(b []byte, t []column, top int) []byte {
	kind := func(k column) string {
		switch {
		case k.n == k.ok:
			return ""
		case k.ok == 0:
			return "fail"
		}
		return "fail part"
	}
	for i := 0; i < len(t); {
		from, class := i, kind(t[i])
		for i < len(t) && kind(t[i]) == class {
			i++
		}
		if class == "" {
			continue
		}
		y, h := top, bandHeight
		if class != "fail" {
			y, h = top+bandHeight/2, bandHeight/2
		}
		b = fmt.Appendf(b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d"/>`, class, chartLeft+from*columnWidth, y, (i-from)*columnWidth, h)
	}
	return b
}

// lines draws the median, and the area from it up to the 95th percentile.
func lines(b []byte, t []column, s scale, top int) []byte {
	var line, area []byte
	for i := 0; i < len(t); {
		if t[i].p50 <= 0 {
			i++
			continue
		}
		var back []byte
		cmd := byte('M')
		for ; i < len(t) && t[i].p50 > 0; i++ {
			x := chartLeft + i*columnWidth
			y := float64(top) + s.y(t[i].p50)
			line = fmt.Appendf(line, "%c%d %.1fh%d", cmd, x, y, columnWidth)
			area = fmt.Appendf(area, "%c%d %.1fh%d", cmd, x, y, columnWidth)
			back = append(fmt.Appendf(nil, "L%d %.1fh-%d", x+columnWidth, float64(top)+s.y(t[i].p95), columnWidth), back...)
			cmd = 'L'
		}
		area = append(append(area, back...), 'z')
	}
	if len(line) == 0 {
		return fmt.Appendf(b, `<text class="empty" x="%d" y="%d">no good probe in this time</text>`, chartLeft+8, top+bandHeight/2+4)
	}
	return fmt.Appendf(b, `<path class="area" d="%s"/><path class="line" d="%s"/>`, area, line)
}
