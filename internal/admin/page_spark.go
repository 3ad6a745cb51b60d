package admin

import (
	"fmt"
	"html/template"
	"strconv"
)

// The size of a sparkline in its own units; the style sheet gives the size on the screen.
const (
	sparkWidth  = 120
	sparkHeight = 24
)

// sparkline draws the latest probes: a line for the latency from 0 to the highest of them, a bar
// for each failure. All that goes into the markup are numbers.
func sparkline(ticks []tick) template.HTML {
	if len(ticks) == 0 {
		return `<span class="none">no probe yet</span>`
	}
	top, least, failed := int32(0), int32(1<<31-1), 0
	for _, t := range ticks {
		if !t.ok() {
			failed++
			continue
		}
		top, least = max(top, t.us), min(least, t.us)
	}
	title := fmt.Sprintf("%d probes, %d failed", len(ticks), failed)
	if failed < len(ticks) {
		title += fmt.Sprintf(", %s to %s ms", formatMS(float64(least)/1e3), formatMS(float64(top)/1e3))
	}
	b := make([]byte, 0, 1200)
	b = fmt.Appendf(b, `<svg class="spark" viewBox="0 0 %d %d" role="img" aria-label="%s"><title>%[3]s</title>`, sparkWidth, sparkHeight, title)
	line, bars := sparkPaths(ticks, top)
	b = append(b, `<path class="miss" d="`...)
	b = append(append(b, bars...), `"/><path class="line" d="`...)
	b = append(append(b, line...), `"/></svg>`...)
	return template.HTML(b) //nolint:gosec // numbers and our own words alone
}

func sparkPaths(ticks []tick, top int32) (line, bars []byte) {
	const step = sparkWidth / sparkLen
	x := sparkWidth - step*len(ticks) + step/2 // the latest is at the right edge
	drawn := false
	for _, t := range ticks {
		if !t.ok() {
			bars = fmt.Appendf(bars, "M%d 0V%d", x, sparkHeight)
			drawn = false
		} else {
			y := sparkHeight - 2 - int(int64(t.us)*(sparkHeight-4)/int64(max(top, 1)))
			cmd := byte('M')
			if drawn {
				cmd = 'L'
			}
			line = strconv.AppendInt(append(line, cmd), int64(x), 10)
			line = strconv.AppendInt(append(line, ' '), int64(y), 10)
			if !drawn {
				line = append(line, "h.5"...) // a lone point is seen, too
			}
			drawn = true
		}
		x += step
	}
	return line, bars
}
