package bench_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"ticketgate/bench"
)

// glyph is how wide a character of 13 pixels is at most, of a whole word.
const glyph = 8

// A label is text of a picture, and where it stands.
type label struct {
	text     string
	from, to float64
	y        float64
	title    bool
}

// labels reads the texts of an SVG.
func labels(t *testing.T, svg string) (all []label) {
	t.Helper()
	var at *label
	anchor := ""
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if at, anchor = nil, ""; e.Name.Local != "text" {
				continue
			}
			at = new(label)
			for _, a := range e.Attr {
				v, err := strconv.ParseFloat(a.Value, 64)
				switch {
				case a.Name.Local == "x" && err == nil:
					at.from = v
				case a.Name.Local == "y" && err == nil:
					at.y = v
				case a.Name.Local == "text-anchor":
					anchor = a.Value
				case a.Name.Local == "class":
					at.title = true
				}
			}
		case xml.CharData:
			if at == nil {
				continue
			}
			at.text = string(e)
			width := float64(glyph * len([]rune(at.text)))
			switch anchor {
			case "end":
				at.from -= width
			case "middle":
				at.from -= width / 2
			}
			at.to = at.from + width
			all = append(all, *at)
			at = nil
		}
	}
}

// apart wants no two texts of one line to meet, and none outside of the picture.
func apart(t *testing.T, svg string) {
	t.Helper()
	all := labels(t, svg)
	for i, a := range all {
		if !a.title && (a.from < 0 || a.to > 720) {
			t.Errorf("%q reaches from %.0f to %.0f", a.text, a.from, a.to)
		}
		for _, b := range all[:i] {
			if d := a.y - b.y; d > -12 && d < 12 && a.from < b.to && b.from < a.to {
				t.Errorf("%q and %q stand over each other at %.0f, %.0f", a.text, b.text, a.from, a.y)
			}
		}
	}
	if len(all) == 0 {
		t.Error("no text")
	}
}

// tenServers are as many as the bench compares, with names as long as theirs.
var tenServers = []string{"ticketgate", "gws", "gobwas/ws", "gorilla", "coder", "ws (node)", "centrifuge", "epollaccept", "epollrelay", "ticketgate, TLS"}

func TestBars(t *testing.T) {
	p := &bench.Bars{Title: "idle & <open>", Names: tenServers}
	for _, x := range []string{"user space, bytes a socket", "kernel, both ends, bytes a socket"} {
		panel := bench.BarPanel{X: x}
		for i := range tenServers {
			panel.Values = append(panel.Values, 1234.5*float64(i*i))
		}
		p.Panels = append(p.Panels, panel)
	}
	var b strings.Builder
	if n, err := p.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	apart(t, b.String())
	// The scale ends at 100,000, over 464 units.
	for _, want := range []string{`<rect class="d9" x="184" y="264" width="464.0"`, ">99,994</text>", "idle &amp; &lt;open&gt;", ">0.00</text>"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

// Ten curves have ten colours, and their names, and those of their steps, do not stand over each other.
func TestPlotOfTen(t *testing.T) {
	steps := &bench.Plot{Title: "t", X: "bytes of a message", Lines: tenServers, Steps: []string{"32", "1,024", "16,384"}}
	scaled := &bench.Plot{Title: "t", X: "open sockets", Lines: tenServers, Xs: []float64{1000, 8000, 16000}}
	for _, p := range []*bench.Plot{steps, scaled} {
		for _, y := range []string{"server CPU, µs a message", "messages a second"} {
			panel := bench.Panel{Y: y}
			for i := range tenServers {
				panel.Ys = append(panel.Ys, []float64{float64(100 * i), 1000, 123456})
			}
			p.Panels = append(p.Panels, panel)
		}
		var b strings.Builder
		if _, err := p.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		apart(t, b.String())
		for i := range tenServers {
			if want := fmt.Sprintf(`<path class="c%d"`, i); strings.Count(b.String(), want) != 1 {
				t.Errorf("not one curve of colour %d", i)
			}
		}
	}
}
