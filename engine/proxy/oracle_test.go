package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	oracle "github.com/pires/go-proxyproto"

	"ticketgate/engine/proxy"
)

// judge compares Parse with go-proxyproto on one input: what Parse takes, the oracle takes alike, and what only the oracle
// takes is one of the differences that the package's comment names.
func judge(t *testing.T, in []byte) {
	t.Helper()
	h, n, err := proxy.Parse(in)
	reader := bufio.NewReaderSize(bytes.NewReader(in), len(in)) // all of it at once, or the oracle refuses a line
	want, wantErr := oracle.Read(reader)
	switch {
	case n < 0 || n > len(in) || err != nil && n != 0 || n == 0 && h != (proxy.Header{}):
		t.Fatalf("%q: %+v, %d, %v", in, h, n, err)
	case n > 0 && wantErr != nil:
		t.Fatalf("%q: taken here, and there it is %v", in, wantErr)
	case n > 0:
		alike(t, in, h, n, want, len(in)-reader.Buffered())
	case wantErr == nil && !stricter(in, err, want):
		t.Fatalf("%q: here it is %v, and there it is taken: %+v", in, err, want)
	}
}

// alike compares what both say of a header.
func alike(t *testing.T, in []byte, h proxy.Header, n int, want *oracle.Header, read int) {
	t.Helper()
	var from, to netip.AddrPort
	if want.Command == oracle.PROXY {
		from, to = tcp(want.SourceAddr), tcp(want.DestinationAddr)
		if _, err := want.TLVs(); err != nil {
			t.Fatalf("%q: taken with its TLVs, which there are %v", in, err)
		}
	}
	if n != read || h.Version != want.Version || h.Source != from || h.Dest != to {
		t.Fatalf("%q: here %+v in %d bytes, there %+v in %d", in, h, n, want, read)
	}
}

func tcp(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ip := t.AddrPort()
	return netip.AddrPortFrom(ip.Addr().Unmap(), ip.Port())
}

// stricter reports whether err is a refusal, meant to be, of what the oracle takes.
func stricter(in []byte, err error, h *oracle.Header) bool {
	tlvs, bad := h.TLVs()
	sums, fits := 0, true
	for _, v := range tlvs {
		if v.Type == oracle.PP2_TYPE_CRC32C {
			sums++
			fits = fits && len(v.Value) == 4
		}
	}
	switch err {
	case proxy.ErrLong:
		return h.Version == 2 && int(binary.BigEndian.Uint16(in[14:]))+16 > proxy.MaxHeader
	case proxy.ErrFamily:
		return h.Command == oracle.PROXY && h.TransportProtocol.IsDatagram()
	case proxy.ErrLength:
		return h.Command == oracle.PROXY && (bad != nil || sums > 1 || !fits)
	case proxy.ErrChecksum:
		return h.Command == oracle.PROXY && sums == 1 && fits && !sound(in)
	case proxy.ErrLine:
		line, _, _ := bytes.Cut(in, []byte("\r\n"))
		return h.Version == 1 && h.Command == oracle.LOCAL && bytes.IndexByte(line, '\r') >= 0
	}
	return false
}

// sound looks for the checksum of a header with one, and reports whether it is right.
func sound(in []byte) bool {
	size := map[byte]int{tcp4: 12, tcp6: 36, unix: 216}[in[13]]
	b := bytes.Clone(in[:16+int(binary.BigEndian.Uint16(in[14:]))])
	for at := 16 + size; ; at += 3 + int(binary.BigEndian.Uint16(b[at+1:])) {
		if b[at] == 3 {
			sum := binary.BigEndian.Uint32(b[at+3:])
			clear(b[at+3 : at+7])
			return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) == sum
		}
	}
}

func TestOracle(t *testing.T) {
	for _, c := range append(good, bad...) {
		for cut := range len(c.raw) + 1 {
			judge(t, []byte(c.raw[:cut]))
		}
		judge(t, []byte(c.raw+c.rest))
		judge(t, []byte(c.raw+"\r\n\r\n"))
	}
}

// Headers with a few bytes changed, dropped or doubled find what no row has.
func TestOracleOnMutants(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	letters := []byte("0123456789abcdefF:.. \r\n%\x00\x03\x04\x11\x20\x21\x31\xff")
	rows := append(good, bad...)
	for range 60_000 {
		in := []byte(rows[r.IntN(len(rows))].raw + "\r\n\x00\x00\x00\x00")
		for range 1 + r.IntN(3) {
			at := r.IntN(len(in))
			switch r.IntN(4) {
			case 0:
				in = append(in[:at], in[at+1:]...)
			case 1:
				in = append(in[:at+1], in[at:]...)
			default:
				in[at] = letters[r.IntN(len(letters))]
			}
		}
		judge(t, in)
	}
}

// FuzzParse compares Parse with the oracle, whole and cut: a verdict on the first bytes is the verdict on all.
func FuzzParse(f *testing.F) {
	for _, c := range append(good, bad...) {
		f.Add([]byte(c.raw+c.rest), uint16(len(c.raw)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		judge(t, in)
		part := in[:min(int(cut), len(in))]
		h, n, err := proxy.Parse(part)
		all, m, allErr := proxy.Parse(in)
		if (n != 0 || err != nil) && (h != all || n != m || err != allErr) {
			t.Fatalf("%q of %q: %+v, %d, %v; whole: %+v, %d, %v", part, in, h, n, err, all, m, allErr)
		}
	})
}
