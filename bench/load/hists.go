package load

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Bounds of what is recorded: a microsecond to an hour, three digits.
const (
	shortest = int64(time.Microsecond)
	longest  = int64(time.Hour)
	digits   = 3
)

func newHist() *hdrhistogram.Histogram { return hdrhistogram.New(shortest, longest, digits) }

// record counts d n times; what lies outside of the bounds counts as the bound.
func record(h *hdrhistogram.Histogram, d time.Duration, n uint64) {
	_ = h.RecordValues(min(max(int64(d), 0), longest), int64(n)) // within its bounds it has no error
}

// encode is h in the compressed form of version 2, which HdrHistogram's other tools read.
func encode(h *hdrhistogram.Histogram) ([]byte, error) {
	b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("histogram: %w", err)
	}
	return b, nil
}

// hists is histograms by name.
type hists map[string]*hdrhistogram.Histogram

func (h hists) of(name string) *hdrhistogram.Histogram {
	one := h[name]
	if one == nil {
		one = newHist()
		h[name] = one
	}
	return one
}

// take encodes what was counted since the last take.
func (h hists) take() (map[string][]byte, error) {
	all := make(map[string][]byte)
	for name, one := range h {
		if one.TotalCount() == 0 {
			continue
		}
		b, err := encode(one)
		if err != nil {
			return nil, err
		}
		all[name] = b
		one.Reset()
	}
	return all, nil
}

// merge adds what another process took.
func (h hists) merge(encoded map[string][]byte) error {
	for name, b := range encoded {
		one, err := hdrhistogram.Decode(b)
		if err != nil {
			return fmt.Errorf("histogram %s: %w", name, err)
		}
		if dropped := h.of(name).Merge(one); dropped > 0 {
			return fmt.Errorf("histogram %s: %d values are out of bounds", name, dropped)
		}
	}
	return nil
}
