package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

// Laggards are subscribers that read too slowly for a while, and are told what they miss.

// What a laggard has instead of loopback's own: a receive buffer that does not hold megabytes, and segments of an Ethernet.
// With those of 64 KiB a sender would wait for the whole window, and show no progress for longer than a stall may take.
const (
	toldBuffer  = 32 << 10
	toldSegment = 1400
)

// narrow prepares the socket of a laggard.
func narrow(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, toldBuffer),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, toldSegment))
	})
	return errors.Join(err, cerr)
}

// openTold opens n sockets of the stream "clock" that ask for notices.
func (c *cluster) openTold(ctx context.Context, n int) ([]*socket, error) {
	var sockets []*socket
	for i := range n {
		t, err := c.issue(ctx, 0, request{Stream: "clock", Client: fmt.Sprintf("told%d", i)})
		if err != nil {
			return sockets, err
		}
		d := net.Dialer{Control: narrow}
		conn, err := d.DialContext(ctx, "tcp", c.nodes[0].Gate)
		if err != nil {
			return sockets, err
		}
		s := &socket{Conn: conn, r: bufio.NewReader(conn)}
		sockets = append(sockets, s)
		head := strings.TrimSuffix(rig.Head("gate.test", t.Path(), t.Secret()), "\r\n") + "Sec-WebSocket-Protocol: ticketgate.v1\r\n\r\n"
		_, err = io.WriteString(conn, head)
		if err = errors.Join(err, s.switched()); err != nil {
			return sockets, err
		}
	}
	return sockets, nil
}

// A step is a message that a laggard got.
type step struct {
	stamp  int64
	missed int // how many the gateway says were left out in front of it
}

// laggards are readers that are too slow.
type laggards struct {
	mu    sync.Mutex
	heard [][]step       // by socket
	wrong []error        // how they ended before ctx did
	level sync.WaitGroup // those that have not caught up yet
	done  sync.WaitGroup
}

// lag reads each socket a message every pace for lagFor, and then without a pause until ctx ends.
func lag(ctx context.Context, sockets []*socket, pace, lagFor time.Duration) *laggards {
	l := new(laggards)
	until := time.Now().Add(lagFor)
	for _, s := range sockets {
		l.level.Add(1)
		l.done.Go(func() {
			steps, err := s.lag(ctx, pace, until, sync.OnceFunc(l.level.Done))
			l.mu.Lock()
			defer l.mu.Unlock()
			l.heard = append(l.heard, steps)
			if err != nil {
				l.wrong = append(l.wrong, err)
			}
		})
	}
	return l
}

// A laggard has catchUp to take what is left, and has done so when it gets a message that is not older than fresh.
const (
	catchUp = 20 * time.Second
	fresh   = 500 * time.Millisecond
)

// lag calls level once s has caught up or failed. It returns nil when ctx has ended and s is closed.
func (s *socket) lag(ctx context.Context, pace time.Duration, until time.Time, level func()) (steps []step, err error) {
	defer level()
	if err := s.SetDeadline(until.Add(catchUp)); err != nil {
		return nil, err
	}
	t := time.NewTicker(pace)
	defer t.Stop()
	missed := 0
	for {
		op, text, err := s.readStart()
		var n int
		switch {
		case ctx.Err() != nil:
			return steps, nil
		case err != nil:
			return steps, err
		case op == frame.Close:
			return steps, errors.New("closed")
		case op == frame.Ping:
			if err := s.send(frame.Pong, nil); err != nil { // the gate's pings are empty
				return steps, err
			}
			continue
		case strings.HasPrefix(text, `{"$tg"`):
			if _, err := fmt.Sscanf(text, `{"$tg":"gap","missed":%d}`, &n); err != nil {
				return steps, fmt.Errorf("notice %q: %w", text, err)
			}
			missed += n
			continue
		}
		at, err := stampOf(text)
		if err != nil {
			return steps, err
		}
		steps = append(steps, step{at.UnixNano(), missed})
		missed = 0
		if now := time.Now(); now.After(until) {
			if now.Sub(at) < fresh {
				level()
				if err := s.SetDeadline(time.Time{}); err != nil {
					return steps, err
				}
			}
			continue
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return steps, nil
		}
	}
}

// judge compares what they got with all that was said: what is not there must have been told, exactly. Their sockets are
// closed.
func (l *laggards) judge(x *exam, then string, all []int64, closed, dropped, others int) {
	l.done.Wait()
	gaps, missed, untold, unmoved := 0, 0, 0, 0
	for _, steps := range l.heard {
		own := 0
		for i, s := range steps {
			if s.missed > 0 {
				own++
				missed += s.missed
			}
			if i == 0 {
				continue
			}
			from, _ := slices.BinarySearch(all, steps[i-1].stamp)
			to, _ := slices.BinarySearch(all, s.stamp)
			if to-from-1 != s.missed {
				untold++
			}
		}
		gaps += own
		if own == 0 {
			unmoved++
		}
	}
	x.figure("%s: %d laggards: %d gaps told, %d messages missed in them; gaps not told or told wrongly %d, sockets that failed %d", then,
		len(l.heard), gaps, missed, untold, len(l.wrong))
	x.want(len(l.wrong) == 0, "%s: laggards failed: %v", then, errors.Join(l.wrong...))
	x.want(untold == 0, "%s: %d gaps not told, or told wrongly", then, untold)
	x.want(unmoved == 0, "%s: %d laggards missed nothing", then, unmoved)
	same := dropped == gaps || others > 0 && dropped > gaps // others missed some too
	x.want(closed == 0 && same, "%s: metrics say %d closed with 4440 and %d trimmed, want 0 and %d", then, closed, dropped, gaps)
}
