// Package revoke is what was given and is taken back: API keys, clients, tickets, streams, plans, single connections. A
// Revocation says what, a Set is all that one node knows of, and a Log is where the nodes of a cluster tell each other.
//
//	admin ──> Log.Publish ──> every node's follower (store/follow) ──> Set ──asked──> issue: key 401, client 403
//	                                                                   │             redeem: the common 401
//	                                                                   └──told──> engine.Sweep: open sockets close with 4403
//
// A revocation has a moment, At, by the store's clock. What was given until then is taken back: tickets issued up to At + Slack, used or
// not, and the sockets opened with them, whenever a node hears of it. What is given later is not meant, unless it is barred: a key
// for ever, a client for a while.
//
// Nothing here waits, dials or logs.
package revoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"ticketgate/ticket"
)

// Slack is how far the nodes' ideas of the store's time may part: a ticket issued so soon after a revocation may as well be from before,
// so it is revoked too. A node that knows of the revocation dates what it issues behind that (Set.Issue).
const Slack = time.Second

// Forever is the end of what has none.
var Forever = time.UnixMilli(253402300799000).UTC() // 9999-12-31

// Bounds of a revocation's texts, in bytes, and of all revocations of a cluster.
const (
	nameMax   = 256
	ReasonMax = 200
	textMax   = 2048 // of AppendText
	Max       = 100_000
)

// A Selector says what is revoked: all of its fields that are not empty hold.
type Selector struct {
	Key    string `json:"key,omitempty"`
	Client string `json:"client,omitempty"`
	Stream string `json:"stream,omitempty"`
	Plan   string `json:"plan,omitempty"`
	Ticket string `json:"ticket,omitempty"`     // public id
	Conn   string `json:"connection,omitempty"` // public id: one open socket, and no ticket
}

// Empty reports whether s says nothing.
func (s *Selector) Empty() bool { return *s == Selector{} }

// A Revocation is one thing that was taken back. It is not written to once it was published.
type Revocation struct {
	ID     string
	At     time.Time // of the store's clock, like all times here; to the millisecond
	What   Selector
	Barred time.Time // until then What gets nothing new either; zero: it does
	Lift   bool      // ends what bars What since before At; nothing is revoked
	Code   uint16    // with which open sockets close: 4403, or what an admin says
	Spare  bool      // unused tickets stay good: only open sockets close
	Over   time.Duration
	Until  time.Time // it may be forgotten then: nothing that it takes back can be left
	Reason string    // for people
}

// wire is a Revocation in a log. Unknown members are from a later version, which then has another v.
type wire struct {
	V      int      `json:"v"`
	ID     string   `json:"id"`
	At     int64    `json:"at"` // milliseconds
	What   Selector `json:"what"`
	Barred int64    `json:"barred,omitempty"`
	Lift   bool     `json:"lift,omitempty"`
	Code   uint16   `json:"code,omitempty"`
	Spare  bool     `json:"spare,omitempty"`
	Over   int64    `json:"over,omitempty"` // milliseconds
	Until  int64    `json:"until"`
	Reason string   `json:"reason,omitempty"`
}

// AppendText appends r as a log keeps it.
func AppendText(dst []byte, r *Revocation) []byte {
	w := wire{V: 1, ID: r.ID, At: r.At.UnixMilli(), What: r.What, Lift: r.Lift, Code: r.Code, Spare: r.Spare, Over: r.Over.Milliseconds(),
		Until: r.Until.UnixMilli(), Reason: r.Reason}
	if !r.Barred.IsZero() {
		w.Barred = r.Barred.UnixMilli()
	}
	text, err := json.Marshal(&w)
	if err != nil { // a struct of numbers and texts
		panic(err)
	}
	return append(dst, text...)
}

// ErrText is a text that is no revocation of this version.
var ErrText = errors.New("not a revocation of this version")

// Parse reads what AppendText wrote. The error is ErrText, or says which rule of Check is broken.
func Parse(text []byte) (r Revocation, err error) {
	var w wire
	if len(text) > textMax || json.Unmarshal(text, &w) != nil || w.V != 1 {
		return r, ErrText
	}
	r = Revocation{ID: w.ID, At: time.UnixMilli(w.At).UTC(), What: w.What, Lift: w.Lift, Code: w.Code, Spare: w.Spare, Over: time.Duration(w.Over) * time.Millisecond,
		Until: time.UnixMilli(w.Until).UTC(), Reason: w.Reason}
	if w.Barred != 0 {
		r.Barred = time.UnixMilli(w.Barred).UTC()
	}
	return r, r.Check()
}

// Check says what is wrong with r.
func (r *Revocation) Check() error {
	s := &r.What
	for _, f := range [...]struct{ name, text string }{
		{"id", r.ID}, {"key", s.Key}, {"client", s.Client}, {"stream", s.Stream}, {"plan", s.Plan}, {"ticket", s.Ticket}, {"connection", s.Conn},
	} {
		if len(f.text) > nameMax || !utf8.ValidString(f.text) {
			return fmt.Errorf("%s: at most %d bytes of UTF-8", f.name, nameMax)
		}
	}
	switch {
	case r.ID == "":
		return errors.New("id: missing")
	case s.Empty():
		return errors.New("selector: empty; name at least one of key, client, stream, plan, ticket, connection")
	case len(r.Reason) > ReasonMax || !printable(r.Reason):
		return fmt.Errorf("reason: at most %d bytes that can be printed", ReasonMax)
	case s.Ticket != "" && !IsTicket(s.Ticket):
		return errors.New("ticket: no ticket has this id")
	case r.Code != 0 && (r.Code < 1000 || r.Code > 4999):
		return errors.New("code: want 1000 to 4999")
	case r.Over < 0 || r.At.IsZero() || r.Until.Before(r.At):
		return errors.New("at, until, over: do not fit each other")
	}
	return nil
}

// IsTicket reports whether id may be the public id of a ticket.
func IsTicket(id string) bool {
	_, _, _, err := ticket.ParsePublicID(id)
	return err == nil
}

func printable(s string) bool {
	for _, c := range s {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

// A Place is how far a node has read a log. The zero Place is in front of everything.
type Place struct {
	History string // of the log's data: another one may lack what the former had, and has to be read from the start
	Seq     uint64
}

// A Page is a part of a log.
type Page struct {
	Texts [][]byte // AppendText, in the order of their publishing
	Next  Place
	Reset bool // the history is not the one asked for: the page begins at the start
	More  bool
}

// ErrFull is a log that has Max revocations in force.
var ErrFull = fmt.Errorf("there are %d revocations in force: no more can be kept", Max)

// A Log is where nodes tell each other what was revoked. Any goroutine may call it. A call that fails may have happened or not;
// repeating it is harmless. Errors other than ErrFull are ticket.ErrUnavailable.
type Log interface {
	// Publish adds those of rs whose id is not there.
	Publish(ctx context.Context, rs []Revocation) error
	// Read returns what stands behind p, most at a time.
	Read(ctx context.Context, p Place, most int) (Page, error)
	// Watch calls changed when it has begun to watch, and each time that something may have been added, until ctx ends or it cannot
	// watch any more: then it says why. changed does not wait.
	Watch(ctx context.Context, changed func()) error
}
