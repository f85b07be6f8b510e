package engine_test

import (
	"bytes"
	"crypto/rand"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/upgrade/upgradetest"
	"ticketgate/ticket"
)

// yes is a Redeemer that takes every ticket, whatever its secret.
type yes struct {
	*desk
	grant []byte
}

func (y *yes) Redeem(b *ticket.Batch) {
	for range b.Reqs {
		b.Answers = append(b.Answers, ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: y.grant})
	}
	b.Done(b)
}

// acceptor is a gate for which every locator of its own is good.
type acceptor struct {
	*rig
	minter *ticket.Minter
	joined int   // requests that got as far as the stream
	differ error // how net/http reads the last of them otherwise
	raw    []byte
	sent   int // bytes of raw, until a stream was asked
}

func newAcceptor(t testing.TB) *acceptor {
	a := new(acceptor)
	a.rig = newRig(t, nil, func(o *engine.Options) {
		o.Origins = engine.Origins{None: true, List: []string{"https://app.example.com", "https://a"}}
		o.Redeemer = &yes{o.Redeemer.(*desk), ticket.AppendClaims(nil, &ticket.Claims{Client: "ann", Plan: "plan", Stream: "echo",
			IssuedAt: time.Unix(wall, 0), SessionEnd: time.Unix(wall, 0).Add(time.Hour)})}
	})
	a.minter = a.ring.NewMinter(rand.Reader)
	a.stream.onJoin = func(c engine.Conn, j *engine.Join) {
		a.joined++
		a.differ = upgradetest.Differs(a.raw, j.Request)
		c.Accept(nil)
	}
	return a
}

// target is what stands for a good ticket in a raw request.
const target = "/t/abc"

// send brings raw in pieces of at most longest bytes, and returns the answer; then the client is gone. What stands behind an
// upgrade that was answered is frames, and not sent.
func (a *acceptor) send(t *testing.T, raw []byte, rnd *mathrand.Rand, longest int) string {
	m, err := a.minter.Mint(a.clock.Wall().Add(30*time.Second), a.desk.epoch, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.raw = bytes.Replace(raw, []byte(target), append([]byte("/t/"), m.Text[:]...), 1)
	p := a.mem.Connect(somebody)
	for a.sent = 0; a.sent < len(a.raw) && a.joined == 0; {
		n := min(len(a.raw)-a.sent, 1+rnd.IntN(longest))
		p.Write(a.raw[a.sent : a.sent+n])
		a.mem.Run()
		a.sent += n
	}
	answer := string(p.Read())
	p.Reset()
	a.mem.Run()
	a.stream.joined, a.stream.ends, a.desk.touched = a.stream.joined[:0], a.stream.ends[:0], a.desk.touched[:0]
	return answer
}

// FuzzAccept: what opens a socket, from the bytes of the connection to the 101, is a request that net/http reads as well, with
// the same method, target, host, fields and an empty body, and nothing behind it. What does not leaves nothing behind.
func FuzzAccept(f *testing.F) {
	for _, rows := range [][]upgradetest.Head{upgradetest.Upgrades, upgradetest.Smuggling, upgradetest.Targets} {
		for _, c := range rows {
			f.Add([]byte(c.Raw), uint64(len(c.Raw)))
		}
	}
	a := newAcceptor(f)
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		a.joined, a.differ = 0, nil
		answer := a.send(t, raw, mathrand.New(mathrand.NewPCG(seed, 0)), 1+int(seed%4096))
		switch opened := strings.HasPrefix(answer, "HTTP/1.1 101 "); {
		case opened != (a.joined == 1):
			t.Fatalf("%q: %d streams asked, answer %q", a.raw, a.joined, answer)
		case opened && a.differ != nil:
			t.Fatalf("%q: %v", a.raw, a.differ)
		case opened && !bytes.HasSuffix(a.raw[:a.sent], []byte("\r\n\r\n")):
			t.Fatalf("%q: bytes behind the head", a.raw)
		case strings.Count(answer, "HTTP/1.1 ") > 1:
			t.Fatalf("%q: more than one answer: %q", a.raw, answer)
		}
		if s := a.engine.Shared(); s.Names+s.Parked+s.Holds+s.Pongs != 0 {
			t.Fatalf("%q: left behind: %+v", a.raw, s)
		}
	})
}
