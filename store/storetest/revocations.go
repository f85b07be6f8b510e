package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	revoked "ticketgate/revoke" // storetest has a function revoke
)

// LogHarness is a log under test. Advance lets time pass on its clock.
type LogHarness struct {
	Log     revoked.Log
	Now     func() time.Time
	Advance func(t testing.TB, d time.Duration)
}

// Revocations tests a revoked.Log. start returns an empty one each time.
func Revocations(t *testing.T, start func(t *testing.T) LogHarness) {
	t.Run("in order, once each, page by page", func(t *testing.T) { logPages(t, start(t)) })
	t.Run("what is over is forgotten", func(t *testing.T) { logTrims(t, start(t)) })
	t.Run("watchers hear", func(t *testing.T) { logWatched(t, start(t)) })
	t.Run("ten thousand", func(t *testing.T) { logMany(t, start(t)) })
	t.Run("bounded", func(t *testing.T) { logFull(t, start(t)) })
}

func (h *LogHarness) revocation(id string, life time.Duration) revoked.Revocation {
	now := h.Now().Truncate(time.Millisecond)
	return revoked.Revocation{ID: id, At: now, What: revoked.Selector{Client: "client " + id}, Code: 4403, Until: now.Add(life)}
}

// read returns the ids behind p, and where they end.
func (h *LogHarness) read(t testing.TB, p revoked.Place, most int) (ids []string, next revoked.Place, pages int) {
	t.Helper()
	for {
		page, err := h.Log.Read(context.Background(), p, most)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Texts) > most || page.Reset != (page.Next.History != p.History) {
			t.Errorf("%d on a page of %d, reset %v from %q to %q", len(page.Texts), most, page.Reset, p.History, page.Next.History)
		}
		for _, text := range page.Texts {
			r, err := revoked.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
		}
		p, pages = page.Next, pages+1
		if !page.More {
			return ids, p, pages
		}
	}
}

func (h *LogHarness) publish(t testing.TB, rs ...revoked.Revocation) {
	t.Helper()
	if err := h.Log.Publish(context.Background(), rs); err != nil {
		t.Fatal(err)
	}
}

func logPages(t *testing.T, h LogHarness) {
	if ids, _, _ := h.read(t, revoked.Place{}, 10); len(ids) != 0 {
		t.Errorf("a new log has %v", ids)
	}
	var all []revoked.Revocation
	var want []string
	for i := range 23 {
		all = append(all, h.revocation(fmt.Sprintf("r%02d", i), time.Hour))
		want = append(want, all[i].ID)
	}
	h.publish(t, all[:20]...)
	h.publish(t, all[10:]...) // half of them again
	ids, end, pages := h.read(t, revoked.Place{}, 10)
	if !slices.Equal(ids, want) || pages != 3 {
		t.Errorf("read %v on %d pages, want %v on 3", ids, pages, want)
	}
	if ids, next, _ := h.read(t, end, 10); len(ids) != 0 || next != end {
		t.Errorf("behind the end stand %v, and it is %v, not %v", ids, next, end)
	}
	h.publish(t, h.revocation("later", time.Hour))
	if ids, _, _ := h.read(t, end, 10); !slices.Equal(ids, []string{"later"}) {
		t.Errorf("then %v", ids)
	}
	if ids, _, _ := h.read(t, revoked.Place{History: "another", Seq: end.Seq}, 100); len(ids) != 24 {
		t.Errorf("a place of another history: %d, want all 24", len(ids))
	}
}

func logTrims(t *testing.T, h LogHarness) {
	h.publish(t, h.revocation("short", 50*time.Millisecond), h.revocation("long", time.Hour))
	_, end, _ := h.read(t, revoked.Place{}, 10)
	h.Advance(t, 60*time.Millisecond)
	h.publish(t, h.revocation("next", time.Hour))
	if ids, _, _ := h.read(t, revoked.Place{}, 10); !slices.Equal(ids, []string{"long", "next"}) {
		t.Errorf("left are %v", ids)
	}
	if ids, _, _ := h.read(t, end, 10); !slices.Equal(ids, []string{"next"}) {
		t.Errorf("behind the former end stand %v", ids)
	}
}

// watch begins to watch and returns the channel of what is heard, of which the first says that it has begun.
func (h *LogHarness) watch(t *testing.T) <-chan struct{} {
	t.Helper()
	heard, done := make(chan struct{}, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- h.Log.Watch(ctx, func() {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("watching ended with %v", err)
		}
	})
	hear(t, heard)
	return heard
}

func hear(t *testing.T, heard <-chan struct{}) {
	t.Helper()
	select {
	case <-heard:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is heard")
	}
}

func logWatched(t *testing.T, h LogHarness) {
	one, other := h.watch(t), h.watch(t)
	for i := range 3 {
		h.publish(t, h.revocation(fmt.Sprint("r", i), time.Hour))
		hear(t, one)
		hear(t, other)
	}
	if ids, _, _ := h.read(t, revoked.Place{}, 10); len(ids) != 3 {
		t.Errorf("%v", ids)
	}
}

func logMany(t *testing.T, h LogHarness) {
	const n = 10_000
	var batch []revoked.Revocation
	for i := range n {
		if batch = append(batch, h.revocation(fmt.Sprintf("r%05d", i), time.Hour)); len(batch) == 100 {
			h.publish(t, batch...)
			batch = batch[:0]
		}
	}
	ids, _, _ := h.read(t, revoked.Place{}, 500)
	if len(ids) != n || !slices.IsSorted(ids) {
		t.Errorf("%d revocations, in order: %v", len(ids), slices.IsSorted(ids))
	}
}

func logFull(t *testing.T, h LogHarness) {
	batch := make([]revoked.Revocation, 0, 1000)
	for i := range revoked.Max {
		if batch = append(batch, h.revocation(fmt.Sprint("r", i), time.Hour)); len(batch) == cap(batch) {
			h.publish(t, batch...)
			batch = batch[:0]
		}
	}
	if err := h.Log.Publish(context.Background(), []revoked.Revocation{h.revocation("one more", time.Hour)}); !errors.Is(err, revoked.ErrFull) {
		t.Errorf("one more: %v", err)
	}
	h.publish(t, h.revocation("r5", time.Hour)) // which is there
}
