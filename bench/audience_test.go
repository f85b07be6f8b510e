package bench_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"ticketgate/bench"
)

// An Audience says hello, counts what tells the time, and how late it came; it reads over anything else.
func TestAudience(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name     string
		said     []string
		messages uint64
		err      string
	}{
		{"plain", []string{`{"time":"2026-01-02T03:04:04.5Z"}`, `{"time":"2026-01-02T03:04:04.5Z","pad":"..."}`}, 2, "closed"},
		{"wrapped", []string{`{"id":1,"connect":{}}`, `{"push":{"pub":{"data":{"time":"2026-01-02T03:04:04.500000000Z"}}}}`, `{}`}, 1, "closed"},
		{"several", []string{`{"time":"2026-01-02T03:04:04.5Z"}` + "\n" + `{"time":"2026-01-02T03:04:04.7Z"}`}, 2, "closed"},
		{"no time", []string{`{"time":"noon"}`}, 0, "cannot parse"},
		{"no end", []string{`{"time":"2026`}, 0, "without an end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := serve(t, func(conn net.Conn) {
				if _, err := ws.Upgrade(conn); err != nil {
					t.Error(err)
				}
				if hello, err := wsutil.ReadClientText(conn); err != nil || string(hello) != "hello" {
					t.Errorf("%q, %v", hello, err)
				}
				for _, text := range c.said {
					if err := wsutil.WriteServerText(conn, []byte(text)); err != nil {
						t.Error(err)
					}
				}
			})
			l := bench.OpenLoop(t, bench.Options{})
			a := bench.NewAudience(l, []byte("hello"), func() time.Time { return now })
			head := bench.AppendUpgrade(nil, address, []byte("/"), nil)
			open := &bench.Admissions{Loop: l, Gate: target(t, address), Heads: [][]byte{head}, Keep: true, Then: a.Socket}
			open.Start(1)
			runUntil(t, l, func() bool { return a.Err != nil })
			if a.Messages != c.messages || a.Ready() != 1 || !strings.Contains(a.Err.Error(), c.err) {
				t.Errorf("%d messages, %d sockets, %v", a.Messages, a.Ready(), a.Err)
			}
			if got := a.Latency.Max(); c.messages > 0 && got != 500*time.Millisecond {
				t.Errorf("%v late", got)
			}
		})
	}
}
