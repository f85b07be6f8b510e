package limiter

import (
	"context"
	"time"

	"ticketgate/ticket"
)

// A Bank keeps what several nodes, or one before and after a restart, take from together. Nodes lease tokens from it in
// batches and spend them without asking: see Purses. Any goroutine may call it.
type Bank interface {
	// Lease does what each of asks says, in one step each, and fills answers, which is as long. An error: for each of them
	// nobody knows whether it was done, so none may be sent again. It may wait, at most for the store's timeout.
	Lease(ctx context.Context, asks []Ask, answers []Grant) error
}

// An Ask is one bucket's business with the bank, in this order: what was spent without it is taken away, what is given back
// is put in, and what is wanted is taken as far as it is there. A bucket that the bank does not know is full.
type Ask struct {
	Bucket ticket.Subject // keyed hash of the limit and of whose bucket it is
	Terms  Terms
	Spent  int64 // admitted while the bank could not be asked
	Back   int64 // leased before and not spent
	Window int64 // Terms.Fixed: that Back was leased of, and Spent spent in; those of another window are void
	Want   int64 // 0: only look
}

// A Grant is the bank's answer.
type Grant struct {
	Given     int64
	Remaining int64         // in the bucket after it
	Wait      time.Duration // until one more is there, by the bank's clock; 0 if Remaining is not 0
	Window    int64         // Terms.Fixed: which one, its start in Unix seconds
	Ends      time.Duration // Terms.Fixed: until its end, by the bank's clock
}

// Terms are what a bucket in the bank is like.
type Terms struct {
	Rate  Rate
	Burst uint64 // of a token bucket
	Fixed bool   // Rate.N in each window of Rate.Per, which begins where the calendar does
}

// Most is how many tokens there are at once.
func (t *Terms) Most() int64 {
	if t.Fixed {
		return int64(t.Rate.N)
	}
	return int64(t.Burst)
}

// week0 is the first Monday after the epoch, in Unix seconds: windows of weeks begin on Mondays.
const week0 = 4 * 24 * 60 * 60

// WindowStart is when the window of length per began that t lies in: windows follow each other without gaps from midnight
// UTC on 1970-01-01, those of whole weeks from a Monday, and so those of an hour or a day begin with each hour or day.
func WindowStart(t time.Time, per time.Duration) time.Time {
	p, at := int64(per/time.Second), t.Unix()
	offset := WindowOffset(per)
	n := (at - offset) / p
	if (at-offset)%p < 0 {
		n--
	}
	return time.Unix(n*p+offset, 0).UTC()
}

// WindowOffset is where the windows of length per are counted from, in Unix seconds.
func WindowOffset(per time.Duration) int64 {
	if per%(7*24*time.Hour) == 0 {
		return week0
	}
	return 0
}

// Down is what a limit does while the bank cannot be asked.
type Down uint8

// The values of store_down.
const (
	DownLocal Down = iota // each node admits by a bucket of its own, of the full rate: n nodes up to n times the limit
	DownDeny              // nothing is admitted
	DownAllow             // everything is admitted
)

var downs = map[string]Down{"local": DownLocal, "deny": DownDeny, "allow": DownAllow}

func (d Down) String() string { return [...]string{"local", "deny", "allow"}[d] }
