package load

import (
	"time"

	"ticketgate/bench"
)

// asking posts for tickets and opens none of them.
type asking struct {
	w       *worker
	api     *bench.Target
	mint    *bench.Mint
	pacer   *pacer
	free    []*asker
	all     int
	busy    int
	wait    []time.Duration // when those were due that no connection was free for
	running bool
}

func newAsking(w *worker) (*asking, error) {
	a := &asking{w: w, mint: bench.NewMint(w.job.API, w.job.Key, w.job.Stream, w.job.Clients)}
	a.mint.Skip(w.job.Index, w.job.Share)
	var err error
	a.api, err = bench.NewTarget(w.job.API)
	return a, err
}

func (a *asking) socket() bench.Handler { return nil }

func (a *asking) begin(time.Duration) error {
	a.running = true
	if s := a.w.job.Schedule; s != nil {
		a.pacer = newPacer(*s, a.w.job.Index, a.w.job.Share, a.w.rnd)
	}
	return nil
}

// tick is opener's: a request for each that is due, or for each connection that is free.
func (a *asking) tick(now time.Duration) time.Duration {
	next := far
	if a.pacer != nil {
		next = a.w.due(a.pacer, now, func(due time.Duration) { a.wait = append(a.wait, due) })
	}
	for range a.w.job.Lanes {
		switch {
		case len(a.free) == 0 && a.all == a.w.job.Lanes:
			return next
		case len(a.wait) > 0:
			due := a.wait[0]
			if a.wait = a.wait[1:]; len(a.wait) == 0 {
				a.wait = nil
			}
			a.one(due)
		case a.pacer == nil && a.running:
			a.w.Due++
			a.one(now)
		default:
			return next
		}
	}
	return now
}

func (a *asking) one(due time.Duration) {
	var k *asker
	if n := len(a.free); n > 0 {
		k, a.free = a.free[n-1], a.free[:n-1]
	} else {
		a.all++
		k = &asker{a: a}
		k.caller = bench.NewCaller(a.w.loop, a.api, k.answer)
	}
	a.busy++
	a.w.Begun++
	k.due, k.req = due, a.mint.Append(k.req[:0])
	k.caller.Post(k.req)
}

func (a *asking) finish() {
	a.running = false
	a.w.fail(classSlow, uint64(len(a.wait)))
	a.wait = nil
}

func (a *asking) idle() bool { return a.busy == 0 }

// An asker is one connection to the handshake.
type asker struct {
	a      *asking
	caller *bench.Caller
	req    []byte
	due    time.Duration
}

func (k *asker) answer(an bench.Answer, err error) {
	a := k.a
	a.busy--
	a.free = append(a.free, k)
	if _, err = bench.TicketOf(an, err); err != nil {
		a.w.fail(classOf(err), 1)
		return
	}
	a.w.Done++
	a.w.Received += uint64(len(an.Body))
	record(a.w.hists.of(histOperation), a.w.loop.Now()-k.due, 1)
}
