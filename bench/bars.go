package bench

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Bars are quantities that have no order, a bar for each name, in panels, as SVG that is readable on light and on dark paper. Names stand
// beside their bars, so that they may be many and long.
type Bars struct {
	Title  string
	Names  []string
	Panels []BarPanel
}

// A BarPanel has a value for each of the Bars' Names, none of which is negative.
type BarPanel struct {
	X      string // what it shows, with its unit
	Values []float64
}

const (
	barsLeft, barsRight = 184, 72 // for names, and for values
	barRow, barHeight   = 22, 14
	barsTop, barsBottom = 30, 12 // of a panel
)

// WriteTo writes the picture.
func (p *Bars) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	each := barsTop + barRow*len(p.Names) + barsBottom
	height := plotHead + each*len(p.Panels)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n"+plotStyle(), plotWidth, height, html.EscapeString(p.Title))
	fmt.Fprintf(&b, `<rect class="p" width="%d" height="%d"/>`+"\n"+`<text class="t" x="16" y="24">%s</text>`+"\n", plotWidth, height, html.EscapeString(p.Title))
	for i, panel := range p.Panels {
		p.panel(&b, panel, plotHead+each*i)
	}
	b.WriteString("</svg>\n")
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func (p *Bars) panel(b *strings.Builder, panel BarPanel, top int) {
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", barsLeft, top+barsTop-10, html.EscapeString(panel.X))
	_, end := scale(panel.Values)
	for i, v := range panel.Values {
		y := top + barsTop + barRow*i
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect class="d%d" x="%d" y="%d" width="%.1f" height="%d"/><text x="%.1f" y="%d">%s</text>`+"\n",
			barsLeft-8, y+barHeight-2, html.EscapeString(p.Names[i]), i%len(plotColours), barsLeft, y, p.length(v, end), barHeight, barsLeft+p.length(v, end)+6, y+barHeight-2, Number(v))
	}
}

func (p *Bars) length(v, end float64) float64 { return v / end * (plotWidth - barsLeft - barsRight) }
