package bench_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ticketgate/bench"
)

const ssSays = `0      262144 127.0.0.1:8081 127.0.1.1:40000
	 skmem:(r0,rb131072,t0,tb262144,f1792,w272640,o0,bl0,d0)
0      0      127.0.0.1:8081 127.0.1.2:40001 skmem:(r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0)
`

func TestParseSends(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []int64
		fails      bool
	}{
		{"two sockets", ssSays, []int64{272640, 0}, false},
		{"none", "", nil, false},
		{"without memory", "0 0 127.0.0.1:8081 127.0.1.1:40000\n", nil, false},
		{"cut", "skmem:(r0,rb131072,t0", nil, true},
		{"without a send queue", "skmem:(r0,rb131072,t0,tb87040,f0,o0,bl0,d0)", nil, true},
		{"no number", "skmem:(r0,w1x,o0)", nil, true},
	} {
		got, err := bench.ParseSends([]byte(c.text))
		if !slices.Equal(got, c.want) || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

// ss is asked for the gateway's ends only: the client's have the port as the peer's.
func TestSends(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := bench.Sends(t.Context(), 8081); err == nil {
		t.Error("there is no ss, and no error")
	}
	script := "#!/bin/sh\n[ \"$*\" = '-tmnH state established sport = :8081' ] || { echo \"called with $*\" >&2; exit 1; }\necho '" + ssSays + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "ss"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := bench.Sends(t.Context(), 8081); err != nil || !slices.Equal(got, []int64{272640, 0}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := bench.Sends(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "called with") {
		t.Errorf("what ss says is not told: %v", err)
	}
}
