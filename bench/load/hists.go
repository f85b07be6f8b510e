package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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

// encode is h in the compressed form of version 2 in base64, which HdrHistogram's other tools read.
func encode(h *hdrhistogram.Histogram) (string, error) {
	b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return "", fmt.Errorf("histogram: %w", err)
	}
	return string(b), nil
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

// take packs what was counted since the last take.
func (h hists) take() map[string][]byte {
	all := make(map[string][]byte)
	for name, one := range h {
		if one.TotalCount() == 0 {
			continue
		}
		all[name] = pack(one.Export().Counts)
		one.Reset()
	}
	return all
}

// pack writes the counts that are not 0, each behind how many are 0 before it: 4 times a second for each histogram of each worker,
// which is too often to compress.
func pack(counts []int64) []byte {
	var b []byte
	zeros := uint64(0)
	for _, n := range counts {
		if n == 0 {
			zeros++
			continue
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, zeros), uint64(n))
		zeros = 0
	}
	return b
}

var errPacked = errors.New("these are no counts")

// unpack is the histogram of what pack wrote.
func unpack(b []byte) (*hdrhistogram.Histogram, error) {
	s := newHist().Export()
	for at := 0; len(b) > 0; at++ {
		zeros, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errPacked
		}
		count, m := binary.Uvarint(b[n:])
		if m <= 0 || zeros >= uint64(len(s.Counts)-at) || count == 0 || count > math.MaxInt64 {
			return nil, errPacked
		}
		at += int(zeros)
		s.Counts[at] = int64(count)
		b = b[n+m:]
	}
	return hdrhistogram.Import(s), nil
}

// merge adds what another process took.
func (h hists) merge(encoded map[string][]byte) error {
	for name, b := range encoded {
		one, err := unpack(b)
		if err != nil {
			return fmt.Errorf("histogram %s: %w", name, err)
		}
		if dropped := h.of(name).Merge(one); dropped > 0 {
			return fmt.Errorf("histogram %s: %d values are out of bounds", name, dropped)
		}
	}
	return nil
}
