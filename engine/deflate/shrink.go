package deflate

import (
	"errors"
	"slices"

	"github.com/klauspost/compress/flate"
)

// A Deflater compresses whole messages. One serves all sockets of a loop, since no message refers to the one before. Its
// compressors are made when they are first needed and kept, at most Most bytes; none grows with a message. The zero value
// is ready.
type Deflater struct {
	by  [len(windows)]*flate.Writer
	out sink
}

// Most is what a Deflater takes in bytes when it has met every window; one that has met only the whole window, which all
// browsers have, takes a quarter of it.
const Most = 4 << 20

// windows are the bits of the windows that we compress with. Who asked for another gets the next smaller one; of one of 8 bits
// we keep the promise, which zlib, that takes 9 instead, does not.
var windows = [...]uint8{8, 9, 12, MaxBits}

// Deflate appends to dst what src compresses to within a window of bits, 8 to MaxBits, without the tail that section 7.2.1
// takes off. false: that would not be smaller than src, so it is to be sent plain; dst has its former bytes then. Nothing
// of src is kept. No allocation but for dst, once the window has been met.
func (d *Deflater) Deflate(dst, src []byte, bits uint8) ([]byte, bool) {
	if len(src) <= len(empty) {
		return dst, false
	}
	w := d.writer(bits)
	d.out = sink{b: slices.Grow(dst, len(src)+len(tail)), most: len(dst) + len(src) - 1 + len(tail)}
	w.Reset(&d.out)
	_, err := w.Write(src)
	if err == nil {
		err = w.Flush()
	}
	out := d.out.b
	d.out = sink{}
	if err != nil { // sink's: it does not get smaller
		return out[:len(dst)], false
	}
	return out[:len(out)-len(tail)], true
}

// What Flush writes at the end: an empty stored block, of which the tail is not sent.
const (
	empty = "\x00" + tail
	tail  = "\x00\x00\xff\xff"
)

// writer gives the compressor whose window is the largest within bits.
func (d *Deflater) writer(bits uint8) *flate.Writer {
	i := len(windows) - 1
	for i > 0 && windows[i] > bits {
		i--
	}
	if d.by[i] == nil {
		d.by[i] = newWriter(windows[i])
	}
	return d.by[i]
}

// newWriter: level 1 for the whole window; the smaller ones have a compressor of their own.
func newWriter(bits uint8) *flate.Writer {
	var w *flate.Writer
	var err error
	if bits == MaxBits {
		w, err = flate.NewWriter(nil, flate.BestSpeed)
	} else {
		w, err = flate.NewWriterWindow(nil, 1<<bits)
	}
	if err != nil {
		panic(err) // the arguments are constants
	}
	return w
}

// A sink takes what is written up to a length.
type sink struct {
	b    []byte
	most int
}

var errLarger = errors.New("deflate: not smaller")

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	if len(p) > s.most-len(s.b) {
		return 0, errLarger
	}
	s.b = append(s.b, p...)
	return len(p), nil
}
