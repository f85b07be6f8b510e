package load

import (
	"slices"
	"testing"
	"time"
)

// Steps end in their order, those that are over are not given up, and one that is given up may begin again.
func TestWaits(t *testing.T) {
	q := waits{limit: 10}
	var gone []int
	now := time.Duration(0)
	all := make([]wait, 5)
	for i := range all {
		all[i].expired = func() {
			gone = append(gone, i)
			if i == 1 {
				q.begin(&all[i], now)
			}
		}
	}
	if q.next() != far {
		t.Errorf("nothing is under way, and the first ends at %v", q.next())
	}
	for i := range all {
		q.begin(&all[i], time.Duration(i))
	}
	all[2].end()
	all[2].end()
	for _, c := range []struct {
		now, next time.Duration
		gone      []int
	}{
		{9, 10, nil},
		{10, 11, []int{0}},
		{13, 14, []int{0, 1, 3}},
		{14, 23, []int{0, 1, 3, 4}},
		{23, 33, []int{0, 1, 3, 4, 1}},
	} {
		now = c.now
		q.expire(now)
		if !slices.Equal(gone, c.gone) || q.next() != c.next {
			t.Errorf("at %d: %v, next %d; want %v, %d", now, gone, q.next(), c.gone, c.next)
		}
	}
	all[1].end()
	if q.next() != far {
		t.Errorf("all are over, and the first ends at %v", q.next())
	}
	var free waits
	free.begin(&all[0], 0)
	if free.next() != far {
		t.Error("a step without a limit ends")
	}
}
