package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// pageWidth is the width that all output for people fits, in columns.
const pageWidth = 80

// colour is how a piece of text is shown on a terminal (ECMA-48 SGR).
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	dim    colour = "2"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// page is output for people, gathered so that columns can be aligned over all of it.
type page struct {
	colours bool
	rows    []row
}

// row is cells of the page's table, or a line by itself where text is set.
type row struct {
	text  string
	style colour
	cells []cell
}

// cell is one field of a row.
type cell struct {
	text  string
	style colour
	right bool // aligned
}

func newPage(w io.Writer) *page { return &page{colours: wantsColour(w)} }

// wantsColour: on a terminal, unless NO_COLOR says otherwise (no-color.org).
func wantsColour(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// line adds a line, wrapped where it is too long.
func (p *page) line(style colour, format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	indent := len(text) - len(strings.TrimLeft(text, " "))
	for i, l := range wrap(strings.TrimLeft(text, " "), pageWidth-indent-2) {
		if i > 0 {
			l = "  " + l
		}
		p.rows = append(p.rows, row{text: strings.Repeat(" ", indent) + l, style: style})
	}
	if text == "" {
		p.rows = append(p.rows, row{})
	}
}

// add adds a row of the table.
func (p *page) add(cells ...cell) { p.rows = append(p.rows, row{cells: cells}) }

// gap stands between two columns.
const gap = "  "

// minColumn is what a column that must give way keeps at least.
const minColumn = 10

// widths are those of the table's columns, the widest of which give way until all fit.
func (p *page) widths() []int {
	var w []int
	for _, r := range p.rows {
		for i, c := range r.cells {
			if i == len(w) {
				w = append(w, 0)
			}
			w[i] = max(w[i], utf8.RuneCountInString(c.text))
		}
	}
	total := len(gap) * (len(w) - 1)
	for _, n := range w {
		total += n
	}
	for ; total > pageWidth; total-- {
		widest := 0
		for i := range w {
			if w[i] > w[widest] {
				widest = i
			}
		}
		if w[widest] <= minColumn {
			break
		}
		w[widest]--
	}
	return w
}

// lines are the page's lines as they are written.
func (p *page) lines() []string {
	w := p.widths()
	out := make([]string, 0, len(p.rows))
	for _, r := range p.rows {
		if r.cells == nil {
			out = append(out, p.paint(r.style, r.text))
			continue
		}
		var b strings.Builder
		blanks := 0 // owed: none is written at a line's end
		for i, c := range r.cells {
			text := cut(c.text, r.room(i, w))
			pad := w[i] - utf8.RuneCountInString(text)
			before := blanks
			if c.right {
				before, pad = before+pad, 0
			}
			if text != "" {
				b.WriteString(strings.Repeat(" ", before))
				b.WriteString(p.paint(c.style, text))
				blanks = pad + len(gap)
			} else {
				blanks = before + pad + len(gap)
			}
		}
		out = append(out, b.String())
	}
	return out
}

// room is how wide a cell's text may be: as its column, and as those behind it that are empty in this row.
func (r *row) room(i int, widths []int) int {
	room := widths[i]
	for k := i + 1; !r.cells[i].right && k < len(r.cells) && r.cells[k].text == ""; k++ {
		room += len(gap) + widths[k]
	}
	return room
}

func (p *page) paint(style colour, text string) string {
	if !p.colours || style == plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

func (p *page) print(w io.Writer) int {
	if _, err := io.WriteString(w, strings.Join(p.lines(), "\n")+"\n"); err != nil {
		return exitFailed
	}
	return exitOK
}

// cut shortens text to a width.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	r := []rune(text)
	return string(r[:max(width-1, 0)]) + "…"
}

// wrap breaks text that is longer than a line at blanks. A word longer than a line is broken, too.
func wrap(text string, width int) []string {
	if text != "" && utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:width])), string(r[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// msText is a latency with three digits or so; "-" where there is none.
func msText(ms float64) string {
	switch {
	case ms <= 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// lengthText is a length of time that somebody has set, given in milliseconds: "10s", "2ms".
func lengthText(ms float64) string { return time.Duration(ms * float64(time.Millisecond)).String() }

// span is a time between two events, in its two largest units.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// since is span, "-" for what never was.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t))
}

// clock is a time of day for people; with its date where it is not today's.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

// bytesText is a size for people.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, units := float64(n)/unit, []string{"KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; v >= unit && i < len(units)-1; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
