package bench

import "time"

// Posts asks for tickets over a number of connections, one request at a time on each, and counts the answers.
type Posts struct {
	Loop *Loop
	To   *Target
	Mint *Mint
	Max  int          // tickets to ask for at most, 0: until Stop
	Keep func(Ticket) // gets each ticket, whose bytes are gone when it returns; nil: nobody wants them

	Done    uint64
	Latency Hist
	Bytes   int   // body length of the last ticket
	Err     error // the first failure; it stops everything

	begun int
	busy  int
	stop  bool
}

// Start begins with n connections.
func (p *Posts) Start(n int) {
	p.stop = false
	for range n {
		w := &poster{p: p}
		w.caller = NewCaller(p.Loop, p.To, w.answered)
		p.busy++
		w.next()
	}
}

// Stop asks for no more; Idle says when what is under way has ended.
func (p *Posts) Stop() { p.stop = true }

// Idle says that nothing is under way.
func (p *Posts) Idle() bool { return p.busy == 0 }

type poster struct {
	p      *Posts
	caller *Caller
	req    []byte
	sent   time.Duration
}

func (w *poster) next() {
	p := w.p
	if p.stop || p.Err != nil || p.Max > 0 && p.begun == p.Max {
		p.busy--
		w.caller.HangUp()
		return
	}
	p.begun++
	w.req = p.Mint.Append(w.req[:0])
	w.sent = p.Loop.Now()
	w.caller.Post(w.req)
}

func (w *poster) answered(a Answer, err error) {
	p := w.p
	t, err := TicketOf(a, err)
	switch {
	case err == nil:
		p.count(w.sent, a, t)
	case p.Err == nil:
		p.Err = err
	}
	w.next()
}

func (p *Posts) count(sent time.Duration, a Answer, t Ticket) {
	p.Done++
	p.Bytes = len(a.Body)
	p.Latency.Record(p.Loop.Now() - sent)
	if p.Keep != nil {
		p.Keep(t)
	}
}
