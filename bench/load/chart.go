package load

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A chart is curves over one quantity, as SVG. Colours and fonts come from the page around it.
type chart struct {
	title  string
	x      string // what the numbers below are
	lines  []curve
	marks  []mark               // of the x axis; none: even steps
	format func(float64) string // of the y axis
	whole  bool                 // there is nothing between 0 and 1
}

// A curve is points with rising x.
type curve struct {
	name string
	x, y []float64
}

// A mark is a place on the x axis.
type mark struct {
	at   float64
	text string
}

const (
	chartWidth, chartHeight = 760, 260
	chartLeft, chartRight   = 76, 16
	chartTop, chartBottom   = 34, 42
	chartSteps              = 5
	markHalf                = 12 // how much wider half of a mark such as 99.999% is than chartRight
)

func (c chart) svg() string {
	var xMax, yMax float64
	xMin := math.Inf(1)
	points := 0
	for _, l := range c.lines {
		for i := range l.x {
			xMin, xMax, yMax = min(xMin, l.x[i]), max(xMax, l.x[i]), max(yMax, l.y[i])
			points++
		}
	}
	if points == 0 {
		return ""
	}
	for _, m := range c.marks {
		xMin, xMax = min(xMin, m.at), max(xMax, m.at)
	}
	if len(c.marks) == 0 {
		xMin = 0
	}
	if xMax <= xMin {
		xMax = xMin + 1
	}
	step := niceStep(yMax / chartSteps)
	if c.whole {
		step = max(step, 1)
	}
	yMax = max(step*math.Ceil(yMax/step), step)
	px := func(v float64) float64 {
		return chartLeft + (v-xMin)/(xMax-xMin)*(chartWidth-chartLeft-chartRight)
	}
	py := func(v float64) float64 {
		return chartHeight - chartBottom - v/yMax*(chartHeight-chartTop-chartBottom)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<figure><svg viewBox="0 0 %d %d" role="img" aria-label="%s"><text class="t" x="%d" y="18">%s</text>`, chartWidth, chartHeight,
		html.EscapeString(c.title), chartLeft, html.EscapeString(c.title))
	for v := 0.0; v <= yMax*1.0001; v += step {
		fmt.Fprintf(&b, `<path class="g" d="M%d %.1fH%d"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, chartLeft, py(v), chartWidth-chartRight,
			chartLeft-8, py(v)+4, html.EscapeString(c.format(v)))
	}
	marks := c.marks
	if len(marks) == 0 {
		for s, v := niceStep(xMax/8), 0.0; v <= xMax*1.0001; v += s {
			marks = append(marks, mark{v, trim(v)})
		}
	}
	for _, m := range marks {
		x, anchor := px(m.at), "middle"
		if x > chartWidth-chartRight-markHalf { // the picture ends before it would
			x, anchor = chartWidth, "end"
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="%s">%s</text>`, x, chartHeight-chartBottom+18, anchor, html.EscapeString(m.text))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, chartWidth-chartRight, chartHeight-6, html.EscapeString(c.x))
	for i, l := range c.lines {
		b.WriteString(c.curve(i, l, px, py))
	}
	if len(c.lines) > 1 {
		x := chartWidth - chartRight
		for i := len(c.lines) - 1; i >= 0; i-- {
			name := c.lines[i].name
			fmt.Fprintf(&b, `<text class="l%d" x="%d" y="18" text-anchor="end">&#9632; %s</text>`, i, x, html.EscapeString(name))
			x -= 22 + 8*len(name)
		}
	}
	b.WriteString("</svg></figure>\n")
	return b.String()
}

// pointsMax is how many points of a curve can be pointed at: beyond, they would lie on each other.
const pointsMax = 240

func (c chart) curve(i int, l curve, px, py func(float64) float64) string {
	var b, dots strings.Builder
	every := len(l.x)/pointsMax + 1
	for k := range l.x {
		fmt.Fprintf(&b, "%.1f,%.1f ", px(l.x[k]), py(l.y[k]))
		if k%every == 0 {
			fmt.Fprintf(&dots, `<circle class="d" cx="%.1f" cy="%.1f" r="5"><title>%s %s: %s</title></circle>`, px(l.x[k]), py(l.y[k]),
				html.EscapeString(l.name), trim(l.x[k]), html.EscapeString(c.format(l.y[k])))
		}
	}
	return fmt.Sprintf(`<polyline class="c l%d" points="%s"/>%s`, i, strings.TrimSpace(b.String()), dots.String())
}

// niceStep is 1, 2 or 5 times a power of ten, at least v.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, times := range []float64{1, 2, 5} {
		if times*power >= v*0.9999 {
			return times * power
		}
	}
	return 10 * power
}

func trim(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}
