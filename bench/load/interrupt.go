package load

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// breakOff makes a result of what there is when ctx has ended: the workers begin nothing more, wait for the answers that are under
// way, and report. A run that has not begun has its opening to tell; one without an open socket has nothing.
func (r *runner) breakOff(ctx context.Context) error {
	if r.start == 0 {
		if r.counts().Opened == 0 {
			return ctx.Err()
		}
		if err := r.opened(); err != nil {
			return err
		}
		r.result.Kernel[1] = kernelNow()
		return nil
	}
	client := func(p *proc) bool { return p.verb != backend } // without it nothing more would be answered
	if err := r.tell(order{Stop: true}, client); err != nil {
		return err
	}
	patience := r.s.Settle + r.patience
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := r.follow(rest)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for i, p := range r.procs { // nobody waits as long for them now as in a run
		if p.done || !client(p) {
			continue
		}
		if err := r.lose(p, fmt.Errorf("worker %d did not stop within %s, and was killed", i, patience)); err != nil {
			return err
		}
	}
	return r.follow(context.WithoutCancel(ctx))
}

// brokenOff says that r is a part of what it was to be. Why it is INVALID besides stays, but nothing failed that was not tried.
func (r *Result) brokenOff() {
	r.Verdict = Interrupted
	if r.Run.Took == 0 {
		r.Why = []string{"ended while sockets were being opened"}
		return
	}
	r.Why = append([]string{fmt.Sprintf("ended after %s of %s", r.Run.Took.Round(10*time.Millisecond), r.Settings.Duration)}, r.Why...)
}
