package load

import (
	"context"
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
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.s.Settle+endPatience)
	defer cancel()
	return r.follow(rest)
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
