package conform

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// deflate is permessage-deflate (RFC 7692 section 7) as negotiated, on the client's side.
type deflate struct {
	serverForgets bool // server_no_context_takeover
	serverBits    int  // of the window that the server's compressor uses, 8 to 15
	clientBits    int  // of the window that ours may use

	// Of the writer.
	out  bytes.Buffer
	z    *flate.Writer
	open bool // a message is being compressed

	// Of the reader.
	unz    io.ReadCloser
	before []byte // the last of what came, if the server's compressor remembers it
	looked int    // messages whose distances were checked
}

// windowMax is the longest window (7692 7.1.2).
const windowMax = 15

// parameter is one of permessage-deflate's, with its value.
type parameter struct{ name, value string }

// parseExtension takes "name; a; b=1" apart.
func parseExtension(s string) (name string, all []parameter) {
	name, rest, more := strings.Cut(s, ";")
	for more {
		var one string
		one, rest, more = strings.Cut(rest, ";")
		key, value, _ := strings.Cut(strings.TrimSpace(one), "=")
		all = append(all, parameter{key, strings.Trim(value, `"`)})
	}
	return strings.TrimSpace(name), all
}

// agreed reads a server's answer to offer: nil if it declined. The answer has to fit one of the offers (7692 5.1, 7.1).
func agreed(answer []string, offer string) (*deflate, error) {
	if len(answer) == 0 {
		return nil, nil
	}
	if len(answer) > 1 || strings.Contains(answer[0], ",") {
		return nil, fmt.Errorf("extensions %q accepted, want one at most", answer)
	}
	name, got := parseExtension(answer[0])
	if name != "permessage-deflate" || offer == "" {
		return nil, fmt.Errorf("extension %q accepted, which nobody offered", answer[0])
	}
	d := &deflate{serverBits: windowMax, clientBits: windowMax}
	for i, p := range got {
		if _, twice := value(got[:i], p.name); twice {
			return nil, fmt.Errorf("extension %q repeats %s", answer[0], p.name)
		}
		if err := d.take(p); err != nil {
			return nil, fmt.Errorf("extension %q: %w", answer[0], err)
		}
	}
	for one := range strings.SplitSeq(offer, ",") {
		if _, asked := parseExtension(one); d.fits(asked, got) {
			return d, nil
		}
	}
	return nil, fmt.Errorf("extension %q answers none of %q", answer[0], offer)
}

// take reads one parameter of an answer.
func (d *deflate) take(p parameter) error {
	bits, err := strconv.Atoi(p.value)
	inRange := err == nil && bits >= 8 && bits <= windowMax && p.value[0] != '0'
	switch {
	case p.name == "client_no_context_takeover" && p.value == "": // we never do
		return nil
	case p.name == "server_no_context_takeover" && p.value == "":
		d.serverForgets = true
		return nil
	case p.name == "server_max_window_bits" && inRange:
		d.serverBits = bits
		return nil
	case p.name == "client_max_window_bits" && inRange:
		d.clientBits = bits
		return nil
	}
	return fmt.Errorf("parameter %q has no business there", p.name+"="+p.value)
}

// fits reports whether the answer got does what the offer asked.
func (d *deflate) fits(asked, got []parameter) bool {
	if _, want := value(asked, "server_no_context_takeover"); want && !d.serverForgets {
		return false
	}
	if most, want := value(asked, "server_max_window_bits"); want {
		bits, err := strconv.Atoi(most)
		if _, said := value(got, "server_max_window_bits"); err != nil || !said || d.serverBits > bits {
			return false
		}
	}
	_, may := value(asked, "client_max_window_bits")
	_, does := value(got, "client_max_window_bits")
	return may || !does
}

// value looks a parameter up.
func value(all []parameter, name string) (string, bool) {
	for _, p := range all {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// tail ends each flush and is not sent (7692 7.2.1).
const tail = "\x00\x00\xff\xff"

// frame compresses what f carries of a message and says which reserved bits it has then and where its Cuts are. Every cut
// and every end of a fragment is a flush, so that the bytes before it can be inflated without those behind. Frames that are
// wrong in themselves stay as they are.
func (d *deflate) frame(f *Frame) (payload []byte, rsv byte, cuts []int) {
	first := (f.Op == opText || f.Op == opBinary) && !d.open && f.RSV == 0 && !f.Plain
	if !first && (f.Op != opContinuation || !d.open) {
		return f.Payload, f.RSV, f.Cuts
	}
	d.out.Reset()
	if first {
		rsv = 4
		d.restart()
	}
	from := 0
	for _, to := range append(slices.Clone(f.Cuts), len(f.Payload)) {
		d.compress(f.Payload[from:to])
		from = to
		cuts = append(cuts, d.out.Len())
	}
	payload, cuts = bytes.Clone(d.out.Bytes()), cuts[:len(cuts)-1]
	if d.open = !f.Fin; f.Fin {
		payload = bytes.TrimSuffix(payload, []byte(tail))
	}
	return payload, rsv, cuts
}

// Compressors have tables of 600 KiB, and most cases send a few bytes.
var compressors = sync.Pool{New: func() any {
	z, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // BestSpeed is a level
	}
	return z
}}

// restart forgets what was compressed before.
func (d *deflate) restart() {
	if d.z == nil {
		d.z = compressors.Get().(*flate.Writer)
	}
	d.z.Reset(&d.out)
}

// release gives the compressor back. d sends no more.
func (d *deflate) release() {
	if d.z != nil {
		d.z.Reset(nil)
		compressors.Put(d.z)
		d.z = nil
	}
}

// compress appends b to out, flushed. The library's window is of 15 bits: a smaller one is had by forgetting all before
// each piece of its length.
func (d *deflate) compress(b []byte) {
	for rest := b; ; {
		piece := rest
		if d.clientBits < windowMax {
			piece = rest[:min(len(rest), 1<<d.clientBits)]
			d.restart()
		}
		_, err := d.z.Write(piece)
		if err = errors.Join(err, d.z.Flush()); err != nil {
			panic(err) // a bytes.Buffer takes all
		}
		if rest = rest[len(piece):]; len(rest) == 0 {
			return
		}
	}
}

const (
	lookMax = 4       // messages of a case whose distances are checked: that is slow
	dictMax = 1 << 15 // what an inflater needs of the message before
)

// inflate inflates one message from the server.
func (d *deflate) inflate(payload []byte) ([]byte, error) {
	if d.serverBits < windowMax && d.looked < lookMax {
		d.looked++
		far, err := farthest(append(bytes.Clone(payload), tail...))
		if err != nil {
			return nil, err
		}
		if far > 1<<d.serverBits {
			return nil, fmt.Errorf("it looks %d bytes back, with a window of %d bits", far, d.serverBits)
		}
	}
	in := io.MultiReader(bytes.NewReader(payload), strings.NewReader(tail+"\x01"+tail)) // an empty last block, so that it ends
	if d.unz == nil {
		d.unz = flate.NewReader(in)
	} else if err := d.unz.(flate.Resetter).Reset(in, d.before); err != nil {
		return nil, err
	}
	msg, err := io.ReadAll(io.LimitReader(d.unz, messageMax))
	if err == nil && !d.serverForgets {
		d.before = append(d.before, msg...)
		d.before = bytes.Clone(d.before[max(0, len(d.before)-dictMax):])
	}
	return msg, err
}
