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
	by  [Window15 + 1]*flate.Writer
	out sink
}

// Most is what a Deflater takes in bytes when it has met every window; one that has met only the whole window, which all
// browsers have, takes a third of it.
const Most = 3 << 20

// A Window is how far back a compressed message may refer. What asks for another than these gets the next smaller one.
type Window uint8

// The windows. Of 256 bytes we keep the promise; zlib, asked for them, takes 512 and breaks it.
const (
	NoWindow Window = iota // nothing is compressed
	Window8                // 2^8 bytes
	Window9                // 2^9 bytes
	Window15               // all that DEFLATE can
)

// Deflate appends to dst what src compresses to within window, which is not NoWindow, without the tail that section 7.2.1
// takes off. false: that would not be smaller than src, so it is to be sent plain; dst has its former bytes then. Nothing
// of src is kept. No allocation but for dst, once the window has been met.
func (d *Deflater) Deflate(dst, src []byte, window Window) ([]byte, bool) {
	if len(src) <= len(empty) {
		return dst, false
	}
	w := d.writer(window)
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

// writer gives the compressor for window.
func (d *Deflater) writer(window Window) *flate.Writer {
	if d.by[window] == nil {
		d.by[window] = newWriter(window)
	}
	return d.by[window]
}

// newWriter: level 1 for the whole window; the smaller ones have a compressor of their own.
func newWriter(window Window) *flate.Writer {
	var w *flate.Writer
	var err error
	switch window {
	case Window8:
		w, err = flate.NewWriterWindow(nil, 1<<8)
	case Window9:
		w, err = flate.NewWriterWindow(nil, 1<<9)
	default:
		w, err = flate.NewWriter(nil, flate.BestSpeed)
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
