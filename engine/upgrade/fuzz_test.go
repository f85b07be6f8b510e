package upgrade_test

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net/http"
	"testing"

	"ticketgate/engine/upgrade"
	"ticketgate/engine/upgrade/upgradetest"
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
		if err := upgradetest.Differs(raw, &r); err != nil {
			t.Fatalf("%q: %v", raw[:n], err)
		}
	})
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
