package bench

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// A Plot is curves over one quantity, in panels, as SVG that is readable on light and on dark paper.
type Plot struct {
	Title  string
	X      string    // what Xs are
	Xs     []float64 // rising; ignored with Steps
	Steps  []string  // names of Xs that are no scale: they stand evenly
	Lines  []string  // names of the curves, in every panel the same; one without a name has no legend
	Panels []Panel
}

// A Panel is one curve for each of the plot's Lines. Ys[line] belong to the plot's Xs or Steps, and may end before them; none
// is negative.
type Panel struct {
	Y  string // what it shows, with its unit
	Ys [][]float64
}

const (
	plotWidth, plotHeight = 720, 240 // of a panel
	plotLeft, plotRight   = 72, 24
	plotTop, plotBottom   = 40, 44
	plotHead              = 36    // above the first panel
	plotLegend, legendRow = 20, 4 // height of a row of names above the panels, and how many it has
	plotSteps             = 5     // of a scale, about
)

// plotColours are those of the lines, on light and on dark paper.
var plotColours = [][2]string{
	{"#0969da", "#58a6ff"}, {"#cf222e", "#ff7b72"}, {"#1a7f37", "#3fb950"}, {"#9a6700", "#d29922"},
	{"#8250df", "#bc8cff"}, {"#bf3989", "#f778ba"}, {"#1b7c83", "#39c5cf"}, {"#57606a", "#8b949e"},
	{"#bc4c00", "#ffa657"}, {"#0a3069", "#a5d6ff"},
}

func plotStyle() string {
	var light, dark strings.Builder
	for i, c := range plotColours {
		fmt.Fprintf(&light, ".c%d{stroke:%s;stroke-width:2;fill:none}.d%d{fill:%s}", i, c[0], i, c[0])
		fmt.Fprintf(&dark, ".c%d{stroke:%s}.d%d{fill:%s}", i, c[1], i, c[1])
	}
	return "<style>\ntext{font:13px system-ui,sans-serif;fill:#24292f}.t{font-size:16px;font-weight:600}.g{stroke:#d0d7de;fill:none}.p{fill:#fff}\n" + light.String() +
		"\n@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{stroke:#3d444d}.p{fill:#0d1117}" + dark.String() + "}\n</style>\n"
}

// WriteTo writes the picture.
func (p *Plot) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	head := plotHead
	if len(p.Lines) > 1 {
		head += plotLegend * ((len(p.Lines) + legendRow - 1) / legendRow)
	}
	height := head + plotHeight*len(p.Panels)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n"+plotStyle(), plotWidth, height, html.EscapeString(p.Title))
	fmt.Fprintf(&b, `<rect class="p" width="%d" height="%d"/>`+"\n"+`<text class="t" x="%d" y="24">%s</text>`+"\n", plotWidth, height, plotLeft, html.EscapeString(p.Title))
	for i, name := range p.Lines {
		if len(p.Lines) > 1 {
			x, y := plotLeft+i%legendRow*(plotWidth-plotLeft-plotRight)/legendRow, plotHead+10+i/legendRow*plotLegend
			fmt.Fprintf(&b, `<path class="c%d" d="M%d %dh18"/><text x="%d" y="%d">%s</text>`+"\n", i%len(plotColours), x, y-4, x+24, y, html.EscapeString(name))
		}
	}
	for i, panel := range p.Panels {
		p.panel(&b, panel, float64(head+i*plotHeight))
	}
	b.WriteString("</svg>\n")
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// panel draws the curves, their scales from 0 on, below top.
func (p *Plot) panel(b *strings.Builder, panel Panel, top float64) {
	yStep, yMax := scale(slices.Concat(panel.Ys...))
	y := func(v float64) float64 { return top + plotHeight - plotBottom - v/yMax*(plotHeight-plotTop-plotBottom) }
	const width = plotWidth - plotLeft - plotRight
	fmt.Fprintf(b, `<text x="%d" y="%.0f">%s</text>`+"\n", plotLeft, top+plotTop-14, html.EscapeString(panel.Y))
	for v := 0.0; v <= yMax; v += yStep {
		fmt.Fprintf(b, `<path class="g" d="M%d %.1fH%d"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", plotLeft, y(v), plotLeft+width, plotLeft-8, y(v)+4, tickText(v))
	}
	mark := func(x float64, text string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x, y(0)+18, html.EscapeString(text))
	}
	var x func(i int) float64
	if len(p.Steps) > 0 {
		each := width / float64(len(p.Steps))
		x = func(i int) float64 { return plotLeft + each*(float64(i)+0.5) }
		for i, text := range p.Steps {
			mark(x(i), text)
		}
	} else {
		step, end := scale(p.Xs)
		at := func(v float64) float64 { return plotLeft + v/end*width }
		x = func(i int) float64 { return at(p.Xs[i]) }
		for v := 0.0; v <= end; v += step {
			mark(at(v), tickText(v))
		}
	}
	fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="middle">%s</text>`+"\n", plotLeft+width/2, y(0)+36, html.EscapeString(p.X))
	for l, ys := range panel.Ys {
		var line []string
		for i, v := range ys {
			line = append(line, fmt.Sprintf("%.1f,%.1f", x(i), y(v)))
		}
		colour := l % len(plotColours)
		fmt.Fprintf(b, `<polyline class="c%d" points="%s"/>`+"\n", colour, strings.Join(line, " "))
		for i, v := range ys {
			fmt.Fprintf(b, `<circle class="d%d" cx="%.1f" cy="%.1f" r="3"><title>%s</title></circle>`+"\n", colour, x(i), y(v), html.EscapeString(p.tip(l, i)+Number(v)))
		}
	}
}

// tip names a point.
func (p *Plot) tip(line, i int) string {
	name := ""
	if line < len(p.Lines) && p.Lines[line] != "" {
		name = p.Lines[line] + ", "
	}
	if len(p.Steps) > 0 {
		return name + p.Steps[i] + ": "
	}
	return name + tickText(p.Xs[i]) + ": "
}

// scale chooses steps of 1, 2 or 5 times a power of ten, and an end that all values lie below.
func scale(values []float64) (step, end float64) {
	most := max(slices.Max(values), 1e-9)
	power := math.Pow(10, math.Floor(math.Log10(most/plotSteps)))
	for _, times := range []float64{1, 2, 5, 10} {
		if step = times * power; most <= step*plotSteps {
			break
		}
	}
	return step, step * math.Ceil(most/step)
}

func tickText(v float64) string {
	if v == math.Trunc(v) && v < 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return Number(v)
}
