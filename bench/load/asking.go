package load

import (
	"time"

	"ticketgate/bench"
)

// asking posts for tickets and opens none of them.
type asking struct {
	queue
	api     *bench.Target
	mint    *bench.Mint
	running bool
}

func newAsking(w *worker) (*asking, error) {
	a := &asking{mint: w.mint()}
	a.queue = queue{w: w, more: func() bool { return a.running }, make: a.asker}
	var err error
	a.api, err = bench.NewTarget(w.job.API)
	return a, err
}

// mint asks for this worker's share of the clients. Hostile peers are clients of their own, so that a limit that they run into is not
// one of the honest.
func (w *worker) mint() *bench.Mint {
	if w.job.Verb == attack && w.job.Clients > 0 {
		m := bench.NewMint(w.job.API, w.job.Key, w.job.Stream, max(w.job.Sockets, 1))
		m.First = w.job.Clients + w.job.Index*w.job.Sockets
		return m
	}
	m := bench.NewMint(w.job.API, w.job.Key, w.job.Stream, w.job.Clients)
	m.Skip(w.job.Index, w.job.Share)
	return m
}

func (a *asking) socket() bench.Handler { return nil }

func (a *asking) begin(time.Duration) error {
	a.running = true
	a.pacer = a.w.pacer()
	return nil
}

func (a *asking) finish() {
	a.running = false
	a.drop()
}

func (a *asking) idle() bool { return a.busy == 0 }

func (a *asking) asker() starter {
	k := &asker{a: a}
	k.caller = bench.NewCaller(a.w.loop, a.api, k.answer)
	k.wait.expired = k.late
	return k
}

// An asker is one connection to the handshake.
type asker struct {
	a      *asking
	caller *bench.Caller
	wait   wait
	req    []byte
	due    time.Duration
}

func (k *asker) begin(due time.Duration) {
	k.a.w.waits.begin(&k.wait, k.a.w.loop.Now())
	k.due, k.req = due, k.a.mint.Append(k.req[:0])
	k.caller.Post(k.req)
}

func (k *asker) hangUp()              { k.caller.HangUp() }
func (k *asker) since() time.Duration { return k.due }

// late gives up a request.
func (k *asker) late() {
	k.caller.HangUp()
	k.answer(bench.Answer{}, errLate)
}

func (k *asker) answer(an bench.Answer, err error) {
	w := k.a.w
	k.wait.end()
	if _, err = bench.TicketOf(an, err); err != nil {
		k.a.failed(k)
		w.failed(err, k.due)
		return
	}
	k.a.ended(k)
	w.Done++
	w.Received += uint64(len(an.Body))
	record(w.hists.of(histOperation), w.loop.Now()-k.due, 1)
}
