package bench

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// A Plot is curves over one quantity, one panel each, as SVG that is readable on light and on dark paper.
type Plot struct {
	Title  string
	X      string // what the numbers of Xs are
	Xs     []float64
	Panels []Panel
}

// A Panel is one curve. Ys belong to the plot's Xs; none is negative.
type Panel struct {
	Y  string // what it shows, with its unit
	Ys []float64
}

const (
	plotWidth, plotHeight = 720, 240 // of a panel
	plotLeft, plotRight   = 72, 24
	plotTop, plotBottom   = 40, 44
	plotHead              = 36 // above the first panel
	plotSteps             = 5  // of a scale, about
)

const plotStyle = `<style>
text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-size:16px;font-weight:600}
.g{stroke:#d0d7de;fill:none}.c{stroke:#0969da;stroke-width:2;fill:none}.d{fill:#0969da}.p{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{stroke:#3d444d}.c{stroke:#58a6ff}.d{fill:#58a6ff}.p{fill:#0d1117}}
</style>
`

// WriteTo writes the picture.
func (p *Plot) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	height := plotHead + plotHeight*len(p.Panels)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n"+plotStyle, plotWidth, height, html.EscapeString(p.Title))
	fmt.Fprintf(&b, `<rect class="p" width="%d" height="%d"/>`+"\n"+`<text class="t" x="%d" y="24">%s</text>`+"\n", plotWidth, height, plotLeft, html.EscapeString(p.Title))
	for i, panel := range p.Panels {
		p.panel(&b, panel, float64(plotHead+i*plotHeight))
	}
	b.WriteString("</svg>\n")
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// panel draws one curve, its scales from 0 on, below top.
func (p *Plot) panel(b *strings.Builder, panel Panel, top float64) {
	xStep, xMax := scale(p.Xs)
	yStep, yMax := scale(panel.Ys)
	x := func(v float64) float64 { return plotLeft + v/xMax*(plotWidth-plotLeft-plotRight) }
	y := func(v float64) float64 { return top + plotHeight - plotBottom - v/yMax*(plotHeight-plotTop-plotBottom) }
	fmt.Fprintf(b, `<text x="%d" y="%.0f">%s</text>`+"\n", plotLeft, top+plotTop-14, html.EscapeString(panel.Y))
	for v := 0.0; v <= yMax; v += yStep {
		fmt.Fprintf(b, `<path class="g" d="M%.1f %.1fH%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", x(0), y(v), x(xMax), plotLeft-8, y(v)+4, tickText(v))
	}
	for v := 0.0; v <= xMax; v += xStep {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x(v), y(0)+18, tickText(v))
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x(xMax/2), y(0)+36, html.EscapeString(p.X))
	var line []string
	for i, v := range panel.Ys {
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(p.Xs[i]), y(v)))
	}
	fmt.Fprintf(b, `<polyline class="c" points="%s"/>`+"\n", strings.Join(line, " "))
	for i, v := range panel.Ys {
		fmt.Fprintf(b, `<circle class="d" cx="%.1f" cy="%.1f" r="3"><title>%s: %s</title></circle>`+"\n", x(p.Xs[i]), y(v), tickText(p.Xs[i]), Number(v))
	}
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
