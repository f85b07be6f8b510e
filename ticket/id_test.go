package ticket_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"ticketgate/ticket"
)

// ids pairs what goes in with the text: the layout is public, because ids stand in logs.
var ids = []struct {
	t    time.Time
	s    ticket.Subject
	h    ticket.Hash
	text string
}{
	{time.UnixMilli(0), 0, ticket.Hash{}, "tkt_" + strings.Repeat("0", 49)},
	{time.UnixMilli(1<<48 - 1), ^ticket.Subject(0), ticket.Hash(bytes.Repeat([]byte{0xff}, 16)), "tkt_7" + strings.Repeat("Z", 9) + "3" + strings.Repeat("Z", 38)},
	{time.UnixMilli(1795348800000), 1, ticket.Hash{15: 1}, "tkt_01M81J18G0000000000000080000000000000000000000001"},
}

func TestPublicID(t *testing.T) {
	for _, c := range ids {
		id := ticket.PublicID(c.t, c.s, c.h)
		if id != c.text {
			t.Errorf("id %s, want %s", id, c.text)
		}
		at, s, h, err := ticket.ParsePublicID(id)
		if err != nil || !at.Equal(c.t) || s != c.s || h != c.h {
			t.Errorf("%s: %v, %x, %x, %v", id, at, s, h, err)
		}
	}
	early, late := ticket.PublicID(noon, ^ticket.Subject(0), ticket.Hash{1}), ticket.PublicID(noon.Add(time.Millisecond), 0, ticket.Hash{})
	if early >= late {
		t.Errorf("%s, then %s: ids sort by time", early, late)
	}
	if a, b := ticket.PublicID(time.Time{}, 0, ticket.Hash{}), ticket.PublicID(time.UnixMilli(0), 0, ticket.Hash{}); a != b {
		t.Errorf("the zero time is %s, want the earliest, %s", a, b)
	}
}

// badIDs are changes of a good id that must not be accepted, so that each ticket has one id.
func badIDs(good string) map[string]string {
	return map[string]string{
		"empty": "", "prefix only": "tkt_", "short": good[:len(good)-1], "long": good + "0", "no prefix": "req_" + good[4:],
		"lower case": strings.ToLower(good), "letter U": good[:20] + "U" + good[21:], "letter I": good[:20] + "I" + good[21:],
		"hyphen": good[:20] + "-" + good[21:], "time over 48 bits": "tkt_8" + good[5:], "spare bits of the hash": good[:14] + "4" + good[15:],
		"highest spare bit": good[:14] + "G" + good[15:], "NUL": good[:20] + "\x00" + good[21:],
	}
}

func TestParsePublicIDRefuses(t *testing.T) {
	for name, bad := range badIDs(ticket.PublicID(noon, subject, ticket.Hash{1, 2, 3})) {
		if at, s, h, err := ticket.ParsePublicID(bad); !errors.Is(err, ticket.ErrID) || !at.IsZero() || s != 0 || h != (ticket.Hash{}) {
			t.Errorf("%s: %q gives %v, %x, %x, %v", name, bad, at, s, h, err)
		}
	}
}

func FuzzParsePublicID(f *testing.F) {
	good := ticket.PublicID(noon, subject, ticket.Hash{1, 2, 3})
	f.Add(good)
	for _, bad := range badIDs(good) {
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, id string) {
		at, s, h, err := ticket.ParsePublicID(id)
		if err == nil && ticket.PublicID(at, s, h) != id {
			t.Fatalf("%q is read as %v, %x, %x, which is %q", id, at, s, h, ticket.PublicID(at, s, h))
		}
	})
}

func TestID(t *testing.T) {
	id, err := ticket.ID("req_", noon, bytes.NewReader(make([]byte, 10)))
	if want := "req_" + ticket.PublicID(noon, 0, ticket.Hash{})[4:14] + strings.Repeat("0", 16); err != nil || id != want || len(id) != 4+26 {
		t.Errorf("%q, %v, want %q", id, err, want)
	}
	a, errA := ticket.ID("c_", noon, rand.Reader)
	b, errB := ticket.ID("c_", noon, rand.Reader)
	if errA != nil || errB != nil || a == b {
		t.Errorf("%s %v, %s %v", a, errA, b, errB)
	}
	if id, err := ticket.ID("c_", noon, bytes.NewReader(make([]byte, 9))); err == nil || id != "" {
		t.Errorf("id %q of 9 random bytes", id)
	}
}
