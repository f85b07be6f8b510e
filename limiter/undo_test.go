package limiter

import (
	"testing"
	"time"

	"ticketgate/internal/mono"
)

// TestUndo lets another loop empty the last bucket between the look and the taking: everything taken before is put back,
// except from a shared bucket that the other loop changed meanwhile.
func TestUndo(t *testing.T) {
	limit := func(text string, per Per, when string, burst Size, counts string) Options {
		r, err := ParseRate(text)
		if err != nil {
			t.Fatal(err)
		}
		return Options{Rate: &r, Per: per, WhenExceeded: when, Burst: &burst, Counts: counts}
	}
	p, problems := Compile("free", map[string]Options{
		"a":  limit("1/1second", PerConnection, "drop-newest", 5, MessagesIn),
		"b":  limit("1/1second", PerClient, "drop-newest", 5, MessagesIn),
		"c":  limit("1/1second", PerClient, "pause", 5, MessagesIn),
		"d":  limit("1/1second", PerConnection, "warn", 1, MessagesIn),
		"z1": limit("1/1second", PerClient, "close", 5, BytesIn),
	}, Defaults{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, touched := range []bool{false, true} {
		clk := mono.NewManual(time.Unix(1_800_000_000, 0))
		now := clk.Now()
		tb := NewTable(8, 1, clk)
		var row Row
		if err := p.Bind(&row, tb, Who{Client: "ann"}); err != nil {
			t.Fatal(err)
		}
		if v := p.Message(&row, tb, In, true, 1, now); v.Action != Pass {
			t.Fatalf("first message: %+v", v)
		}
		a := asked{row: &row, table: tb, now: now, n: [2]int64{1, 4}}
		want := lefts(p, &row, tb, now)
		var v Verdict
		rules := p.rules[In]
		if a.look(rules, &v); v.Action != Warn {
			t.Fatalf("look: %+v", v)
		}
		take := func(i int) { // what another loop does in between
			rules[i].meter.TakeShared(tb.At(Ref(row.words[i])), now, 1)
			want[i]--
		}
		take(4)
		if touched {
			take(1) // before b is taken from: the first compare-and-swap fails, the second does not
		}
		a.take(rules, &v)
		if v.Action != Close || v.Limit.Name != "z1" || v.Wait != time.Second || v.marks != overs<<4 {
			t.Errorf("the verdict after a lost race is %+v", v)
		}
		if got := lefts(p, &row, tb, now); got != want {
			t.Errorf("after a lost race %v are left, want %v", got, want)
		}
		for i := range 4 {
			if rules[i].where == inRow {
				row.words[i] = a.saw[i].after
			} else {
				tb.At(Ref(row.words[i])).Store(a.saw[i].after)
			}
		}
		take(2) // after c is taken from: nobody can tell whose it was, so it stays taken
		want[2]--
		a.undo(rules[:4])
		if got := lefts(p, &row, tb, now); got != want {
			t.Errorf("with c changed after it was taken from, %v are left, want %v", got, want)
		}
	}
}

func lefts(p *Plan, r *Row, t *Table, now mono.Time) (left [rowWords]uint64) {
	for i := range p.limits {
		word := r.words[i]
		if p.limits[i].Per != PerConnection {
			word = t.At(Ref(word)).Load()
		}
		left[i], _ = p.limits[i].Meter.Left(word, now)
	}
	return left
}
