package bench

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Refusals runs lanes that each open one connection after the other, ask for what they are refused, and read the answer to the end of the
// connection, which the server makes.
type Refusals struct {
	Loop   *Loop
	To     *Target
	Heads  [][]byte // requests: in turn, and again
	Status int      // what each is answered with; another is an error
	Max    int      // requests to make at most, 0: until Stop

	Done    uint64
	Latency Hist   // from the dial to the end of the connection
	Answer  []byte // the last one
	Err     error  // the first failure; it stops everything

	begun int
	busy  int
	stop  bool
}

// Start begins with n lanes.
func (f *Refusals) Start(n int) {
	f.stop = false
	for range n {
		f.busy++
		(&refused{f: f}).begin()
	}
}

// Stop begins no more; Idle says when what is under way has ended.
func (f *Refusals) Stop() { f.stop = true }

// Idle says that nothing is under way.
func (f *Refusals) Idle() bool { return f.busy == 0 }

// refused is a lane: the Handler of its connections.
type refused struct {
	f     *Refusals
	head  []byte
	got   []byte
	start time.Duration
}

func (w *refused) begin() {
	f := w.f
	if f.stop || f.Err != nil || f.Max > 0 && f.begun == f.Max {
		f.busy--
		return
	}
	w.head, w.got, w.start = f.Heads[f.begun%len(f.Heads)], w.got[:0], f.Loop.Now()
	f.begun++
	if _, err := f.Loop.Dial(f.To, w); err != nil {
		w.end(err)
	}
}

// Opened implements Handler.
func (w *refused) Opened(c *Conn) { c.Write(w.head) }

// Data implements Handler.
func (w *refused) Data(c *Conn, b []byte) int {
	if len(w.got)+len(b) > headMax {
		c.Close()
		w.end(ErrHead)
		return 0
	}
	w.got = append(w.got, b...)
	return len(b)
}

// Closed implements Handler: the answer is whole, if it is one.
func (w *refused) Closed(_ *Conn, err error) {
	if err != io.EOF {
		w.end(err)
		return
	}
	status, n, err := parseHead(w.got)
	switch {
	case err == nil && n == 0:
		err = early(io.EOF)
	case err == nil && status != w.f.Status:
		err = &StatusError{status, string(w.got[n:min(len(w.got), n+300)])}
	}
	w.end(err)
}

func (w *refused) end(err error) {
	f := w.f
	if err == nil {
		f.Done++
		f.Latency.Record(f.Loop.Now() - w.start)
		f.Answer = append(f.Answer[:0], w.got...)
	} else {
		f.Err = errors.Join(f.Err, fmt.Errorf("refusal: %w", err))
	}
	w.begin()
}
