package ticket_test

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"ticketgate/ticket"
)

var claims = []ticket.Claims{
	{IssuedAt: time.UnixMilli(0).UTC(), SessionEnd: time.UnixMilli(0).UTC()},
	{
		ID: "tkt_01K", Client: "user-42", Key: "key-1", Product: "market-data", Plan: "gold", Stream: "quotes",
		Params:    []ticket.Param{{Name: "symbol", Value: "ACME"}, {Name: "", Value: ""}},
		Protocols: []string{"app.v2", "app.v1"}, Origin: "https://app.example.com", Addr: netip.MustParseAddr("2001:db8::1"),
		IssuedAt: noon, SessionEnd: noon.Add(12*time.Hour + 345*time.Millisecond), Limit: 50,
	},
	{
		Client: "\x00\xff\u20ac", Stream: strings.Repeat("s", 300), Addr: netip.MustParseAddr("192.0.2.1"),
		IssuedAt: time.UnixMilli(-1).UTC(), SessionEnd: time.Time{}, Limit: ticket.NoLimit,
	},
	{Addr: netip.MustParseAddr("::ffff:192.0.2.1"), IssuedAt: noon, SessionEnd: noon, Limit: 1},
}

func TestClaimsRoundTrip(t *testing.T) {
	for i, c := range claims {
		b := ticket.AppendClaims([]byte("before"), &c)
		got, err := ticket.ParseClaims(b[len("before"):])
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("claims %d: %+v, %v, want %+v", i, got, err, c)
		}
		clear(b)
		if !reflect.DeepEqual(got, c) {
			t.Errorf("claims %d share memory with the bytes they were read from", i)
		}
	}
	local := ticket.Claims{IssuedAt: noon.Add(999_999).In(time.FixedZone("x", 3600)), SessionEnd: noon}
	if got, err := ticket.ParseClaims(ticket.AppendClaims(nil, &local)); err != nil || got.IssuedAt != noon {
		t.Errorf("time %v, %v: want milliseconds in UTC", got.IssuedAt, err)
	}
}

// badClaims are faults made in the bytes of claims[1] and [0].
func badClaims() map[string][]byte {
	good, empty := ticket.AppendClaims(nil, &claims[1]), ticket.AppendClaims(nil, &claims[0])
	replace := func(b []byte, at int, with ...byte) []byte {
		return append(append(bytes.Clone(b[:at]), with...), b[at+1:]...)
	}
	return map[string][]byte{
		"nothing":             {},
		"version 0":           replace(good, 0, 0),
		"version 2":           replace(good, 0, 2),
		"one byte more":       append(bytes.Clone(good), 0),
		"number too long":     replace(empty, 1, 0x80, 0),
		"number over 64 bits": replace(empty, 1, bytes.Repeat([]byte{0xff}, 10)...),
		"limit over 32 bits":  replace(empty, 1, 0x80, 0x80, 0x80, 0x80, 0x10),
		"address of 3 bytes":  replace(empty, 4, 3, 1, 2, 3),
		"text beyond the end": replace(empty, 5, 200),
		"params beyond":       replace(empty, 12, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"params half there":   replace(empty, 12, 1),
		"protocols beyond":    replace(empty, 13, 1),
	}
}

func TestParseClaimsRefuses(t *testing.T) {
	for name, b := range badClaims() {
		if c, err := ticket.ParseClaims(b); !errors.Is(err, ticket.ErrClaims) || !reflect.DeepEqual(c, ticket.Claims{}) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	good := ticket.AppendClaims(nil, &claims[1])
	for n := range good {
		if _, err := ticket.ParseClaims(good[:n]); !errors.Is(err, ticket.ErrClaims) {
			t.Errorf("cut after %d of %d bytes: %v", n, len(good), err)
		}
	}
}

func FuzzParseClaims(f *testing.F) {
	for _, c := range claims {
		f.Add(ticket.AppendClaims(nil, &c))
	}
	for _, b := range badClaims() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ticket.ParseClaims(b)
		if err != nil {
			return
		}
		if again := ticket.AppendClaims(nil, &c); !bytes.Equal(again, b) {
			t.Fatalf("%x is read as %+v, which is %x", b, c, again)
		}
	})
}

func BenchmarkParseClaims(b *testing.B) {
	text := ticket.AppendClaims(nil, &claims[1])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ticket.ParseClaims(text); err != nil {
			b.Fatal(err)
		}
	}
}
