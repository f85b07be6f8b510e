package upgrade_test

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/textproto"
	"testing"

	"ticketgate/engine/upgrade"
)

// FuzzParse: whatever we accept, net/http accepts too, with the same method, target, host, header and an empty body; and
// the verdict does not depend on how the bytes were cut.
func FuzzParse(f *testing.F) {
	for _, rows := range tables() {
		for _, c := range rows {
			f.Add([]byte(c.Raw), uint64(len(c.Raw)))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		var r upgrade.Request
		n, p := upgrade.Parse(raw, &upgrade.Scan{}, &r)
		checkSplits(t, raw, rand.New(rand.NewPCG(seed, 0)))
		if n == 0 || p != nil {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			t.Fatalf("%q: net/http says %v", raw[:n], err)
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil || len(body) > 0 || theirs.ContentLength != 0 || len(theirs.TransferEncoding) > 0 {
			t.Fatalf("%q: net/http reads a body: %q %v", raw[:n], body, err)
		}
		if theirs.Method != string(r.Method) || theirs.RequestURI != string(r.Target) || theirs.Host != string(r.Host) || theirs.ProtoMajor != 1 || theirs.ProtoMinor != 1 {
			t.Fatalf("%q: net/http reads %s %s at %s", raw[:n], theirs.Method, theirs.RequestURI, theirs.Host)
		}
		if path := theirs.URL.EscapedPath(); path != string(r.Path) || theirs.URL.RawQuery != string(r.Query) {
			t.Fatalf("%q: net/http reads path %q and query %q", raw[:n], path, theirs.URL.RawQuery)
		}
		sameHeader(t, raw[:n], &r, theirs.Header)
	})
}

// sameHeader compares the header fields. net/http keeps Host elsewhere, and adds Cache-Control where there is only Pragma.
func sameHeader(t *testing.T, raw []byte, r *upgrade.Request, theirs http.Header) {
	t.Helper()
	ours := http.Header{}
	for name, value := range r.Headers {
		if key := textproto.CanonicalMIMEHeaderKey(string(name)); key != "Host" {
			ours[key] = append(ours[key], string(value))
		}
	}
	if ours.Get("Pragma") == "no-cache" && ours["Cache-Control"] == nil {
		theirs.Del("Cache-Control")
	}
	if len(ours) != len(theirs) {
		t.Fatalf("%q: net/http reads %q, we %q", raw, theirs, ours)
	}
	for key, values := range ours {
		if got := theirs[key]; len(got) != len(values) {
			t.Fatalf("%q: %s: net/http reads %q, we %q", raw, key, got, values)
		}
		for i, v := range values {
			if theirs[key][i] != v {
				t.Fatalf("%q: %s: net/http reads %q, we %q", raw, key, theirs[key][i], v)
			}
		}
	}
}

// FuzzParseResponse: whatever we take for a valid 101, net/http reads as one, behind the same interim responses, and ends
// where we end.
func FuzzParseResponse(f *testing.F) {
	for _, c := range answers {
		if len(c.raw) <= upgrade.MaxHead {
			f.Add([]byte(c.raw), uint64(len(c.raw)))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		r := newResponse()
		n, p := upgrade.ParseResponse(raw, &upgrade.Scan{}, r)
		checkResponseSplits(t, raw, rand.New(rand.NewPCG(seed, 0)))
		if n == 0 || p != nil {
			return
		}
		in := bytes.NewReader(raw[:n])
		lines := bufio.NewReader(in)
		for {
			theirs, err := http.ReadResponse(lines, &http.Request{Method: http.MethodGet})
			if err != nil {
				t.Fatalf("%q: net/http says %v", raw[:n], err)
			}
			if theirs.StatusCode != http.StatusSwitchingProtocols {
				if theirs.StatusCode >= 200 {
					t.Fatalf("%q: net/http reads status %d", raw[:n], theirs.StatusCode)
				}
				continue
			}
			if got := theirs.Header.Get("Sec-Websocket-Protocol"); got != string(r.Protocol) || lines.Buffered()+in.Len() != 0 {
				t.Fatalf("%q: net/http reads subprotocol %q and leaves %d bytes", raw[:n], got, lines.Buffered()+in.Len())
			}
			return
		}
	})
}
