package load

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"ticketgate/bench"
)

// A close frame that has no answer at the end is an error too, and one whose answer came is none.
func TestChurnGivesUp(t *testing.T) {
	w := newWorker(t, func() time.Duration { return time.Minute })
	ch := &churning{w: w, o: &opener{queue: queue{w: w}}}
	for i := range 3 {
		ch.closing = append(ch.closing, &churned{c: ch, place: i, due: time.Duration(i) * time.Second})
	}
	ch.closing[0].over(nil)
	ch.giveUp()
	h := w.hists.of(histOperation)
	if w.Done != 1 || w.errors[classNothing] != 2 || h.TotalCount() != 3 || time.Duration(h.Min()) < 57*time.Second {
		t.Errorf("%d done, errors %v, %d in the distribution from %v on", w.Done, w.errors, h.TotalCount(), time.Duration(h.Min()))
	}
}

// Each end of churn is what it is called.
func TestChurnEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		h    func(*churning) bench.Handler
		sent []byte
		err  error
		late bool // the other side says nothing
	}{
		{"polite, without an answer", func(c *churning) bench.Handler { return &churned{c: c, end: endPolite} }, bench.PoliteClose, nil, true},
		{"polite", func(c *churning) bench.Handler { return &churned{c: c, end: endPolite} }, bench.PoliteClose, nil, false},
		{"FIN", func(c *churning) bench.Handler { return &churned{c: c, end: endFIN} }, nil, nil, false},
		{"RST", func(c *churning) bench.Handler { return &churned{c: c, end: endRST} }, nil, syscall.ECONNRESET, false},
		{"middle of a frame", func(c *churning) bench.Handler { return &churned{c: c, end: endMidFrame} }, half, nil, false},
		{"early", func(c *churning) bench.Handler {
			return &brokenOff{&lane{o: c.o}, []byte("GET / HTTP/1.1\r\n\r\n")}
		}, nil, syscall.ECONNRESET, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			w := newWorker(t, nil)
			to, err := bench.NewTarget(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			ch := &churning{w: w, o: &opener{queue: queue{w: w}}}
			ch.o.gone = ch.over
			if c.late {
				w.waits.limit = time.Millisecond
			}
			if _, err := w.loop.Dial(to, c.h(ch)); err != nil {
				t.Fatal(err)
			}
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := w.loop.RunUntil(ctx, patience, func() bool { return w.Done > 0 || len(ch.closing) > 0 }); err != nil {
				t.Fatal(err)
			}
			if len(ch.closing) > 0 && c.late {
				if err := w.loop.RunUntil(ctx, patience, func() bool { w.waits.expire(w.loop.Now()); return len(ch.closing) == 0 }); err != nil || w.errors[classTimeout] != 1 || w.Done != 0 {
					t.Errorf("%v, errors %v, %d done", err, w.errors, w.Done)
				}
				if b, err := io.ReadAll(conn); err != nil || !bytes.Equal(b, c.sent) {
					t.Errorf("%x, %v", b, err)
				}
				return
			}
			if len(ch.closing) > 0 { // it waits for the other side
				b := make([]byte, len(c.sent))
				if _, err := io.ReadFull(conn, b); err != nil || !bytes.Equal(b, c.sent) || w.Done != 0 {
					t.Errorf("%x, %v, %d done", b, err, w.Done)
				}
				if _, err := conn.Write(bench.AppendUnmasked(nil, bench.OpClose, []byte{0x03, 0xe8})); err != nil {
					t.Fatal(err)
				}
				conn.Close()
				if err := w.loop.RunUntil(ctx, patience, func() bool { return w.Done > 0 }); err != nil || len(ch.closing) != 0 || len(w.errors) != 0 {
					t.Errorf("%v, %d are closing, errors %v", err, len(ch.closing), w.errors)
				}
				return
			}
			b, err := io.ReadAll(conn)
			if !errors.Is(err, c.err) || c.err == nil && !bytes.Equal(b, c.sent) {
				t.Errorf("the server has %x, %v; want %x, %v", b, err, c.sent, c.err)
			}
			if w.loop.Open() != 0 || w.Done != 1 {
				t.Errorf("%d open, %d done", w.loop.Open(), w.Done)
			}
		})
	}
}
