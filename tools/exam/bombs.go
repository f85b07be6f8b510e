package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
)

func init() {
	tests[3] = test{"declared-length bomb: refused at the header, nothing allocated", lengthBomb}
}

const (
	bombSockets = 5000
	bombMemory  = 64 << 20 // resident memory may grow by so much
	openAtOnce  = 32       // sockets being opened at a time
)

// announced are the lengths of the bombs and the code each is refused with; the message limit is 64 KiB.
var announced = []struct {
	length uint64
	code   frame.Code
}{
	{1<<63 - 1, frame.CloseTooBig},
	{1 << 62, frame.CloseTooBig},
	{1<<32 + 5, frame.CloseTooBig},
	{1 << 31, frame.CloseTooBig},
	{64<<10 + 1, frame.CloseTooBig},
	{1 << 63, frame.CloseProtocol},
	{1<<64 - 1, frame.CloseProtocol},
}

// lengthBomb opens many sockets, lets all of them announce a frame that they never send, and watches codes, times and memory.
func lengthBomb(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{memory: true})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	sockets, err := c.openMany(ctx, x.n(bombSockets, 50), "echo")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	before, err := residentBytes(c.nodes[0].PID())
	if err != nil {
		return err
	}
	peak, stop := watchMemory(c.nodes[0].PID())
	var slowest atomic.Int64
	var mu sync.Mutex
	right := 0
	half := len(sockets) / 2
	bomb := func(i int, s *socket) {
		a := announced[i%len(announced)]
		took, code, err := s.bomb(a.length, i%2 == 0)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			x.want(false, "length %#x: %v", a.length, err)
		case code != a.code:
			x.want(false, "length %#x: closed with %d, want %d", a.length, code, a.code)
		default:
			right++
		}
		if int64(took) > slowest.Load() {
			slowest.Store(int64(took))
		}
	}
	each(sockets[:half], openAtOnce, bomb)
	closed := time.Duration(slowest.Load())
	each(sockets[half:], half+1, bomb) // all at once: what is allocated for them would be there at once; a time says little
	stop()
	grown := peak.Load() - before
	x.figure("%d sockets: right code %d, slowest close %v, of %d at once %v, resident memory %+.1f MiB at its peak", len(sockets), right,
		closed, len(sockets)-half, time.Duration(slowest.Load()), float64(grown)/(1<<20))
	x.wantTime(closed <= closeWithin, "a close took %v, want at most %v", closed, closeWithin)
	x.wantMemory(grown <= bombMemory, "memory grew by %d bytes, want at most %d", grown, bombMemory)
	return nil
}

// bomb announces length, sends one byte, and waits for the close frame.
func (s *socket) bomb(length uint64, text bool) (time.Duration, frame.Code, error) {
	op := byte(0x82)
	if text {
		op = 0x81
	}
	b := binary.BigEndian.AppendUint64([]byte{op, 0xff}, length)
	b = append(b, 1, 2, 3, 4, 'x')
	if err := s.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if _, err := s.Write(b); err != nil {
		return 0, 0, err
	}
	f, err := s.read()
	took := time.Since(begun)
	if err != nil {
		return took, 0, err
	}
	if f.op != frame.Close {
		return took, 0, fmt.Errorf("got a frame of opcode %d, want a close", f.op)
	}
	return took, f.code(), nil
}

// openMany opens n sockets of stream, each of a client of its own, at node 0 of c.
func (c *cluster) openMany(ctx context.Context, n int, stream string) ([]*socket, error) {
	sockets := make([]*socket, n)
	var failed atomic.Pointer[error]
	each(sockets, openAtOnce, func(i int, _ *socket) {
		if failed.Load() != nil {
			return
		}
		s, err := c.open(ctx, 0, request{Stream: stream, Client: "c" + strconv.Itoa(i)})
		if err != nil {
			err = fmt.Errorf("open socket %d: %w", i, err)
			failed.CompareAndSwap(nil, &err)
			return
		}
		sockets[i] = s
	})
	if err := failed.Load(); err != nil {
		return sockets, *err
	}
	return sockets, nil
}

func closeAll(sockets []*socket) {
	for _, s := range sockets {
		if s != nil {
			_ = s.Close()
		}
	}
}

// each calls f for all of list, at most atOnce at a time, and returns when all are done.
func each[T any](list []T, atOnce int, f func(i int, v T)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				f(i, list[i])
			}
		})
	}
	wg.Wait()
}

// residentBytes is the resident memory of a process.
func residentBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, errors.New("/proc/PID/statm: too short")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

const sampleEvery = 100 * time.Millisecond

// watchMemory samples the resident memory of a process until stop is called, which takes a last sample.
func watchMemory(pid int) (peak *atomic.Int64, stop func()) {
	peak = new(atomic.Int64)
	sample := func() {
		if n, err := residentBytes(pid); err == nil && n > peak.Load() {
			peak.Store(n)
		}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(sampleEvery)
		defer t.Stop()
		for {
			sample()
			select {
			case <-t.C:
			case <-quit:
				sample()
				return
			}
		}
	}()
	return peak, func() {
		close(quit)
		<-done
	}
}
