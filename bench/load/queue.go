package load

import (
	"slices"
	"time"
)

// A starter does one operation at a time.
type starter interface {
	// begin starts an operation that was due at due. It may end within the call.
	begin(due time.Duration)
	// since is when the operation was due that it began last.
	since() time.Duration
	// hangUp ends what it keeps open between operations.
	hangUp()
}

// A queue gives operations to starters, as many as the job has lanes. With a pacer they are due when it says so, and what is due
// while all starters are busy waits, and its time runs; without, the next is due when a starter is free.
type queue struct {
	w     *worker
	pacer *pacer
	more  func() bool    // whether another operation is wanted
	make  func() starter // another lane

	free  []starter
	all   []starter
	tired []tired // whose operation failed in a closed loop, the one that may go on first in front
	busy  int
	row   int             // of failures without a success between them
	begun int             // operations that were taken up, also those that wait
	wait  []time.Duration // when those were due that no starter was free for
	pause time.Duration   // until when nothing begins
}

// A tired starter begins nothing until its time.
type tired struct {
	starter
	until time.Duration
}

// failPause is how long a starter of a closed loop rests after a failure when as many operations as there are lanes have failed in a row:
// what refuses everything at once would be made to do it as fast as the client can, which measures the client. Failures among successes
// cost nobody a rest, which would decide the rate.
const failPause = 50 * time.Millisecond

// tick begins what is due and what a starter is free for, as many as there are lanes at most: what fails at once would else go
// on for ever. It says when it wants to be called again.
func (q *queue) tick(now time.Duration) time.Duration {
	next := far
	if q.pacer != nil {
		next = q.w.due(q.pacer, now, func(due, _ time.Duration) {
			if q.more() {
				q.begun++
				q.wait = append(q.wait, due)
			}
		})
	}
	for len(q.tired) > 0 && q.tired[0].until <= now {
		q.free, q.tired = append(q.free, q.tired[0].starter), q.tired[1:]
	}
	if len(q.tired) > 0 {
		next = min(next, q.tired[0].until)
	}
	if now < q.pause {
		return min(next, q.pause)
	}
	for range q.w.job.Lanes {
		switch {
		case len(q.free) == 0 && len(q.all) == q.w.job.Lanes:
			return next
		case len(q.wait) > 0:
			due := q.wait[0]
			if q.wait = q.wait[1:]; len(q.wait) == 0 {
				q.wait = nil
			}
			q.one(due)
		case q.pacer == nil && q.more():
			q.begun++
			q.w.Due++
			q.one(now)
		default:
			q.rest()
			return next
		}
	}
	return now
}

// one begins an operation on a starter that there is.
func (q *queue) one(due time.Duration) {
	if q.pacer != nil { // it may have waited for a starter
		q.w.behind(due, q.w.loop.Now())
	}
	q.busy++
	q.w.Begun++
	var s starter
	if n := len(q.free); n > 0 {
		s, q.free = q.free[n-1], q.free[:n-1]
	} else {
		s = q.make()
		q.all = append(q.all, s)
	}
	s.begin(due)
}

// ended takes back a starter whose operation is over.
func (q *queue) ended(s starter) {
	q.row = 0
	q.back(s)
}

// back takes back a starter that may go on at once.
func (q *queue) back(s starter) {
	q.busy--
	q.free = append(q.free, s)
}

// failed takes back a starter whose operation has failed.
func (q *queue) failed(s starter) {
	q.row++
	if q.pacer != nil || q.row < q.w.job.Lanes {
		q.back(s)
		return
	}
	q.busy--
	q.tired = append(q.tired, tired{s, q.w.loop.Now() + failPause})
}

// over says that nothing is under way and nothing more will be.
func (q *queue) over() bool { return q.busy == 0 && len(q.wait) == 0 && !q.more() }

// rest hangs up when nothing more will be.
func (q *queue) rest() {
	if !q.over() {
		return
	}
	for _, s := range q.all {
		s.hangUp()
	}
}

// drop gives up what still waits.
func (q *queue) drop() {
	for _, due := range q.wait {
		q.w.unanswered(classSlow, due)
	}
	q.wait = nil
}

// giveUp counts what is under way as without an answer.
func (q *queue) giveUp() {
	for _, s := range q.all {
		rests := func(t tired) bool { return t.starter == s }
		if !slices.Contains(q.free, s) && !slices.ContainsFunc(q.tired, rests) {
			q.w.unanswered(classNothing, s.since())
		}
	}
}
