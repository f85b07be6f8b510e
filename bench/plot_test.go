package bench_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"testing"

	"ticketgate/bench"
)

func TestPlot(t *testing.T) {
	p := &bench.Plot{
		Title: "memory & time <here>", X: "sockets", Xs: []float64{1000, 18000}, Lines: []string{"only"},
		Panels: []bench.Panel{{Y: "MiB", Ys: [][]float64{{10, 90}}}, {Y: "ms", Ys: [][]float64{{0, 0}}}},
	}
	var b strings.Builder
	n, err := p.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	var text []string
	lines := map[string]bool{}
	circles := 0
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.CharData:
			text = append(text, string(e))
		case xml.StartElement:
			for _, a := range e.Attr {
				if e.Name.Local == "polyline" && a.Name.Local == "points" {
					lines[a.Value] = true
				}
			}
			if e.Name.Local == "circle" {
				circles++
			}
		}
	}
	// Scales run from 0 to the step above the largest value: to 20,000 over 624 units, to 100 over 156.
	for _, want := range []string{"103.2,216.4 633.6,91.6", "103.2,472.0 633.6,472.0"} {
		if !lines[want] {
			t.Errorf("no curve %s in %v", want, lines)
		}
	}
	for _, want := range []string{"memory & time <here>", "sockets", "MiB", "ms", "20,000", "100"} {
		if !strings.Contains(fmt.Sprintf("%q", text), fmt.Sprintf("%q", want)) {
			t.Errorf("no text %q", want)
		}
	}
	if strings.Contains(b.String(), "h18") {
		t.Error("a legend for one line")
	}
	if circles != 4 || !strings.Contains(b.String(), "prefers-color-scheme:dark") {
		t.Errorf("%d points, or only for light paper", circles)
	}
}

// Several lines have a legend; steps stand evenly, and a line may end before the last.
func TestPlotLines(t *testing.T) {
	p := &bench.Plot{
		Title: "t", X: "bytes", Steps: []string{"32", "16 KiB"}, Lines: []string{"one", "<two>"},
		Panels: []bench.Panel{{Y: "µs", Ys: [][]float64{{5, 10}, {10}}}},
	}
	var b strings.Builder
	if _, err := p.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<polyline class="c0" points="228.0,174.0 540.0,96.0"/>`, `<polyline class="c1" points="228.0,96.0"/>`,
		">one</text>", ">&lt;two&gt;</text>", ">16 KiB</text>", "<title>&lt;two&gt;, 32: 10.0</title>",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}
