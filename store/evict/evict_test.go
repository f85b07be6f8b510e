package evict_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ticketgate/store/evict"
	"ticketgate/ticket"
)

// play runs f in a world of its own, once everybody listens.
func play(t *testing.T, limit, nodes int, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, limit, nodes)
		synctest.Wait()
		f(t, w)
		w.close()
	})
}

// three has sockets at three nodes: the oldest is at node 1, the idlest at node 2.
func (w *world) three() {
	w.add(w.nodes[0], 1, 2*time.Minute, time.Second)
	w.add(w.nodes[1], 2, 3*time.Minute, 2*time.Second)
	w.add(w.nodes[1], 3, 2*time.Minute, 2*time.Second)
	w.add(w.nodes[2], 4, time.Minute, time.Minute)
}

func (w *world) want(evicted ...uint64) {
	w.t.Helper()
	if got := w.evictions(); !slices.Equal(got, evicted) {
		w.t.Errorf("evicted: %d, want %d", got, evicted)
	}
}

func wantResult(t *testing.T, a ticket.IssueAnswer, r ticket.IssueResult, asked, times int) {
	t.Helper()
	if a.Result != r || asked != times {
		t.Errorf("%+v after %d issues, want result %d after %d", a, asked, r, times)
	}
}

func TestOldestAndIdlest(t *testing.T) {
	for _, at := range []int{0, 1, 2} { // wherever the newcomer asks
		play(t, 4, 3, func(t *testing.T, w *world) {
			w.three()
			a, took, asked := w.nodes[at].want(false)
			wantResult(t, a, ticket.IssueOK, asked, 2)
			w.want(2)
			if took != 0 {
				t.Errorf("took %v", took)
			}
		})
		play(t, 4, 3, func(t *testing.T, w *world) {
			w.three()
			a, _, asked := w.nodes[at].want(true)
			wantResult(t, a, ticket.IssueOK, asked, 2)
			w.want(4)
		})
	}
}

// TestRoom: where there is room nobody is asked.
func TestRoom(t *testing.T) {
	play(t, 5, 3, func(t *testing.T, w *world) {
		w.three()
		a, _, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueOK, asked, 1)
		w.want()
		if n := w.count(); n != 0 {
			t.Errorf("%d messages", n)
		}
	})
}

// TestInVain: nobody goes where that would not give the newcomer a slot.
func TestInVain(t *testing.T) {
	play(t, 3, 3, func(t *testing.T, w *world) { // more than the limit
		w.three()
		a, _, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueFull, asked, 1)
		w.want()
	})
	play(t, 24, 3, func(t *testing.T, w *world) { // too many unused tickets
		w.three()
		w.reserved = 20
		a, _, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueFull, asked, 1)
		w.want()
	})
	play(t, 2, 3, func(t *testing.T, w *world) { // only unused tickets
		w.reserved = 2
		a, took, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueFull, asked, 1)
		if took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

// TestLeftOut: a node that does not answer in time is left out.
func TestLeftOut(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.lose = func(channel string, _ []byte) bool { return channel == "evict:a2" }
		a, took, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueOK, asked, 2)
		w.want(1)
		if took != 300*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
	play(t, 2, 2, func(t *testing.T, w *world) { // and if there is no other, nobody goes
		w.add(w.nodes[1], 1, time.Minute, 0)
		w.add(w.nodes[1], 2, time.Minute, 0)
		w.lose = func(channel string, _ []byte) bool { return channel == "evict:a2" }
		a, took, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueFull, asked, 1)
		w.want()
		if took != 300*time.Millisecond {
			t.Errorf("took %v", took)
		}
		sent := w.count()
		w.late("evict:a2") // the node goes on
		if w.count() != sent {
			t.Error("an answer to who does not wait any more")
		}
	})
}

// TestNoAnswer: what may have happened is not tried again, and what comes too late does not happen.
func TestNoAnswer(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.lose = func(_ string, payload []byte) bool { return payload[1] == 3 } // evict
		a, took, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueFull, asked, 1)
		if took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		w.late("evict:a2") // the node was stopped, and goes on
		w.want()
	})
	play(t, 4, 3, func(t *testing.T, w *world) { // it is done, and nobody learns of it
		w.three()
		w.lose = func(_ string, payload []byte) bool { return payload[1] == 4 } // ended
		a, took, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueFull, asked, 1)
		w.want(2)
		if took != 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
	for at := range 2 { // the store does not acknowledge the count, whoever has the victim
		play(t, 4, 3, func(t *testing.T, w *world) {
			w.three()
			w.nodes[1].deaf = true
			a, _, asked := w.nodes[at].want(false)
			wantResult(t, a, ticket.IssueFull, asked, 1)
			w.want(2)
		})
	}
}

// TestDeafVictim: it takes a second to cut off one that does not read, and there is time for that.
func TestDeafVictim(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.nodes[1].slow = 1100 * time.Millisecond
		a, took, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueOK, asked, 2)
		if took != 1100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestGoneAndTaken: a victim that turns out to be gone may have left its slot; another's is left to him.
func TestGoneAndTaken(t *testing.T) {
	for result, want := range map[evict.Result]int{evict.Gone: 4, evict.Taken: 1, evict.Late: 1, evict.Doubt: 1} {
		play(t, 4, 3, func(t *testing.T, w *world) {
			w.three()
			w.nodes[1].result = result
			a, _, asked := w.nodes[0].want(false)
			wantResult(t, a, ticket.IssueFull, asked, want)
			w.want()
		})
	}
	play(t, 4, 3, func(t *testing.T, w *world) { // it has gone by itself: nobody else has to
		w.three()
		w.lose = func(_ string, payload []byte) bool {
			if payload[1] == 3 { // under w.mu
				w.nodes[1].open = w.nodes[1].open[1:]
				w.held[w.nodes[1].life] = 1
			}
			return false
		}
		a, _, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueOK, asked, 2)
		w.want()
	})
}

// TestFaster: another has got the slot before its newcomer: that one is refused, and has nobody else evicted.
func TestFaster(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.lose = func(_ string, payload []byte) bool {
			if payload[1] == 4 {
				w.reserved++
			}
			return false
		}
		a, _, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueFull, asked, 2)
		w.want(2)
	})
}

// TestAtOnce: newcomers at all nodes at once. As many go as newcomers are let in, and each once.
func TestAtOnce(t *testing.T) {
	for _, slow := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond} {
		play(t, 4, 3, func(t *testing.T, w *world) {
			w.three()
			for _, h := range w.nodes {
				h.slow = slow
			}
			var mu sync.Mutex
			var wg sync.WaitGroup
			in, out := 0, 0
			for n := range 300 {
				wg.Go(func() {
					a, took, asked := w.nodes[n%3].want(n%2 == 0)
					mu.Lock()
					defer mu.Unlock()
					switch a.Result {
					case ticket.IssueOK:
						in++
					case ticket.IssueFull:
						out++
					}
					if took > 2*time.Second || asked > 5 {
						t.Errorf("took %v and %d issues", took, asked)
					}
				})
			}
			wg.Wait()
			gone := w.evictions()
			slices.Sort(gone)
			if len(slices.Compact(slices.Clone(gone))) != len(gone) || len(gone) != 4 || in != 4 || in+out != 300 {
				t.Errorf("evicted %d, let in %d, refused %d; want four, four and the others", gone, in, out)
			}
		})
	}
}

// TestBurst: a thousand newcomers of one client are a few questions, and all but a few hear no at once.
func TestBurst(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.lose = func(_ string, payload []byte) bool { return payload[1] == 2 } // nobody answers
		var wg sync.WaitGroup
		var mu sync.Mutex
		waited := 0
		for range 1000 {
			wg.Go(func() {
				if _, took, _ := w.nodes[0].want(false); took > 0 {
					mu.Lock()
					waited++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if n := w.count(); waited > 16 || n > 16*4 {
			t.Errorf("%d have waited, %d messages", waited, n)
		}
	})
}

// TestAnswersOfOthers: only who was asked is listened to, once, and only by who has asked.
func TestAnswersOfOthers(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.lose = func(_ string, payload []byte) bool {
			if payload[1] != 2 {
				return false
			}
			forged := slices.Clone(payload)
			forged[17] = 0xaf                       // from a node that was not asked
			forged[27] = 0                          // long ago: the best answer
			go w.listeners["evict:a1"](forged)      // to who has asked
			go w.listeners["evict:a3"](payload)     // to who has not
			go w.listeners["evict:a1"]([]byte("x")) // nonsense
			go w.listeners["evict:a1"](forged[:20]) // half of it
			return false
		}
		a, _, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueOK, asked, 2)
		w.want(2)
	})
}

// TestAnsweredTwice: who says it twice has not spoken for another, whose answer takes its time.
func TestAnsweredTwice(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.lose = func(_ string, payload []byte) bool {
			hears := w.listeners["evict:a1"]
			switch {
			case payload[1] != 2:
			case payload[17] == 0xa3:
				hears(payload)
			default:
				time.AfterFunc(100*time.Millisecond, func() { hears(payload) })
				return true
			}
			return false
		}
		a, took, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueOK, asked, 2)
		w.want(2)
		if took != 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestClose: newcomers under way are refused at once, and nothing is left.
func TestClose(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.three()
		w.nodes[1].slow = time.Hour
		done := make(chan time.Duration)
		go func() { _, took, _ := w.nodes[0].want(false); done <- took }()
		synctest.Wait()
		w.nodes[0].Close()
		if took := <-done; took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

// TestAnotherLife: a node listens under its present name only.
func TestAnotherLife(t *testing.T) {
	play(t, 4, 3, func(t *testing.T, w *world) {
		w.nodes[1].Live(0xb2)
		w.nodes[1].life = 0xb2
		synctest.Wait()
		if w.listener("evict:a2") != nil || w.listener("evict:b2") == nil {
			t.Fatal("it listens under its former name, or not under its present one")
		}
		w.three()
		a, _, asked := w.nodes[0].want(false)
		wantResult(t, a, ticket.IssueOK, asked, 2)
		w.want(2)
	})
}
