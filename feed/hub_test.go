package feed_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"ticketgate/engine/frame"
	"ticketgate/feed"
	"ticketgate/feed/feedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func texts(p *feedtest.Peer) (got []string) {
	for _, m := range p.Messages() {
		got = append(got, m.Text)
	}
	return got
}

// closing is the rule that most tests do not get to.
var closing = feed.Slow{Queue: 256 << 10, Then: feed.Close}

func newGate(t *testing.T, h *feed.Hub, loops int) *feedtest.Gate {
	t.Helper()
	return feedtest.NewMemory(t, feedtest.Options{Stream: h.Stream(closing), Loops: loops}, h.Bind)
}

func TestPublishReachesEverySubscriber(t *testing.T) {
	h := feed.NewHub(nil)
	g := newGate(t, h, 3)
	h.PublishText([]byte("nobody hears this"))
	var clients []*feedtest.Peer
	for range 7 {
		c := g.Client(t, "")
		c.Opened()
		clients = append(clients, c)
	}
	if h.Subscribers() != 7 {
		t.Errorf("%d subscribers, want 7", h.Subscribers())
	}
	long := strings.Repeat("x", 70_000)
	h.PublishText([]byte("one"))
	h.PublishText([]byte(long))
	for i, c := range clients {
		if got := texts(c); !slices.Equal(got, []string{"one", long}) {
			t.Errorf("client %d got %d messages, want one and the long one", i, len(got))
		}
	}
	if h.Published() != 3 {
		t.Errorf("%d published, want 3", h.Published())
	}
	clients[0].Text("clients have nothing to say here")
	h.PublishText([]byte("two"))
	for i, c := range clients {
		if got := texts(c); !slices.Equal(got, []string{"two"}) {
			t.Errorf("client %d got %q, want two", i, got)
		}
	}
}

// TestSubscribersComeAndGo: at every moment exactly those who listen hear what is said.
func TestSubscribersComeAndGo(t *testing.T) {
	var woken int
	h := feed.NewHub(func() { woken++ })
	g := newGate(t, h, 2)
	rnd := rand.New(rand.NewPCG(1, 1))
	var clients []*feedtest.Peer
	empties := 0
	for n := range 400 {
		switch k := rnd.IntN(5); {
		case k < 2:
			if len(clients) == 0 {
				empties++
			}
			c := g.Client(t, "")
			c.Opened()
			clients = append(clients, c)
		case k < 4 && len(clients) > 0:
			i := rnd.IntN(len(clients))
			if c := clients[i]; rnd.IntN(2) == 0 {
				c.Reset()
			} else {
				c.CloseFrame(1000, "")
				c.CloseWrite()
			}
			clients = slices.Delete(clients, i, i+1)
			g.Memory.Run()
		default:
			text := fmt.Sprint(n)
			h.PublishText([]byte(text))
			for i, c := range clients {
				if got := texts(c); !slices.Equal(got, []string{text}) {
					t.Fatalf("step %d: client %d of %d got %q, want %q", n, i, len(clients), got, text)
				}
			}
		}
		if h.Subscribers() != len(clients) {
			t.Fatalf("step %d: %d subscribers, want %d", n, h.Subscribers(), len(clients))
		}
	}
	if woken != empties || woken == 0 {
		t.Errorf("busy was called %d times, want %d: once for each first subscriber", woken, empties)
	}
}

// TestASlowSubscriberIsClosed with 4440, alone, also when several of a loop go in one delivery.
func TestASlowSubscriberIsClosed(t *testing.T) {
	h := feed.NewHub(nil)
	g := newGate(t, h, 1)
	var clients []*feedtest.Peer
	for i := range 6 {
		c := g.Client(t, "")
		c.Opened()
		if i%2 == 0 {
			c.Window(0)
		}
		clients = append(clients, c)
	}
	text := []byte(strings.Repeat("x", 50_000))
	for n := range 10 {
		h.PublishText(text)
		for i := 1; i < 6; i += 2 {
			if got := texts(clients[i]); len(got) != 1 {
				t.Errorf("message %d: client %d got %d messages, want 1", n, i, len(got))
			}
		}
	}
	if h.Subscribers() != 3 {
		t.Errorf("%d subscribers, want the 3 that read", h.Subscribers())
	}
	for i := 0; i < 6; i += 2 {
		clients[i].Window(1 << 20)
		got := clients[i].Messages()
		if last := got[len(got)-1]; last != feedtest.Closing(frame.CloseSlow, "slow-consumer") || len(got) > 7 {
			t.Errorf("client %d got %d messages, the last of kind %d with code %d; want at most 6 and then 4440", i, len(got), last.Kind, last.Code)
		}
	}
}

func TestClientThatLeavesWhileJoining(t *testing.T) {
	h := feed.NewHub(nil)
	g := newGate(t, h, 1)
	c := g.Client(t, "")
	c.Reset()
	g.Memory.Run()
	if h.Subscribers() != 0 {
		t.Errorf("%d subscribers, want none", h.Subscribers())
	}
	h.PublishText([]byte("x"))
	g.Memory.Run()
}

// TestPublishFromManyGoroutines on real loops: each publisher's messages arrive in its order.
func TestPublishFromManyGoroutines(t *testing.T) {
	const publishers, each, listeners = 4, 50, 6
	h := feed.NewHub(nil)
	g := feedtest.New(t, feedtest.Options{Stream: h.Stream(closing), Loops: 2}, h.Bind)
	var all sync.WaitGroup
	for i := range listeners {
		c := g.Dial(t)
		all.Go(func() {
			var next [publishers]int
			for range publishers * each {
				_, b, err := c.Read(g.Deadline)
				var from, n int
				if _, scan := fmt.Sscanf(string(b), "%d/%d", &from, &n); err != nil || scan != nil || n != next[from] {
					t.Errorf("client %d: got %q (%v), want number %v", i, b, err, next)
					return
				}
				next[from]++
			}
		})
	}
	var publish sync.WaitGroup
	for p := range publishers {
		publish.Go(func() {
			for n := range each {
				h.PublishText(fmt.Appendf(nil, "%d/%d", p, n))
			}
		})
	}
	publish.Wait()
	all.Wait()
}
