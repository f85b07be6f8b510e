package limiter

import "ticketgate/internal/mono"

// A Run is many messages of one moment and one direction, taken from a plan's limits at once: when one read brings sixteen
// messages, their buckets are touched once and not sixteen times. What was not used is given back at the end. The zero Run
// has nothing to give. It belongs to the loop of its row and lies wherever that loop keeps it; it must not be copied.
type Run struct {
	a      asked
	plan   *Plan // nil: no run is under way
	d      Direction
	left   [2]int64 // messages and bytes that may still pass
	used   [2]int64
	frames uint64 // of used
}

// Begin takes n messages with bytes payload bytes in all from every limit of direction d, as Message does, and reports
// whether all of them would pass. If not, nothing is taken and each must be asked for with Message. The run before must have
// ended.
func (u *Run) Begin(p *Plan, r *Row, t *Table, d Direction, n, bytes int64, now mono.Time) bool {
	rules := p.rules[d]
	u.a.row, u.a.table, u.a.now, u.a.n, u.a.run = r, t, now, [2]int64{n, bytes}, true
	var v Verdict
	if u.a.look(rules, &v); v.marks != 0 {
		return false
	}
	if u.a.take(rules, &v); v.Action >= Hold {
		return false
	}
	if v.marks != 0 { // while it was taken a purse ran dry, or its bank was given up
		u.a.undo(rules)
		return false
	}
	u.plan, u.d = p, d
	u.left, u.used, u.frames = u.a.n, [2]int64{}, 0
	return true
}

// On reports whether a run is under way.
func (u *Run) On() bool { return u.plan != nil }

// Pass uses up one frame of bytes payload bytes, first if it begins a message, and reports whether the run had room for it.
func (u *Run) Pass(first bool, bytes int64) bool {
	var n int64
	if first {
		n = 1
	}
	if n > u.left[messages] || bytes > u.left[payload] {
		return false
	}
	u.left[messages] -= n
	u.left[payload] -= bytes
	u.used[messages] += n
	u.used[payload] += bytes
	u.frames++
	return true
}

// PassAll is Pass for n messages of one frame each, with bytes payload bytes in all.
func (u *Run) PassAll(n, bytes int64) bool {
	if u.plan == nil || n > u.left[messages] || bytes > u.left[payload] {
		return false
	}
	u.left[messages] -= n
	u.left[payload] -= bytes
	u.used[messages] += n
	u.used[payload] += bytes
	u.frames += uint64(n)
	return true
}

// End gives back what was not used and counts what was in ds, the decisions of the run's plan; of no run it does nothing. A
// shared bucket that another loop has changed meanwhile keeps all that was taken, so that no limit is ever exceeded. The row
// must still be bound.
func (u *Run) End(ds []Decisions) {
	if u.plan == nil {
		return
	}
	rules := u.plan.rules[u.d]
	u.plan = nil
	for i := range rules {
		rule := &rules[i]
		n := u.frames
		if rule.kind == messages {
			n = uint64(u.used[messages])
		}
		ds[rule.word].Allow.Add(n)
		if u.left[rule.kind] > 0 {
			u.giveBack(i, rule)
		}
	}
}

// giveBack leaves in the bucket of rule i what was used.
func (u *Run) giveBack(i int, rule *rule) {
	s := u.a.saw[i]
	if rule.where == inPurse {
		u.a.table.purses.put(Ref(u.a.row.words[rule.word]), u.left[rule.kind], source(s.old), s.after)
		return
	}
	if s.old == s.after {
		return
	}
	u.a.n = u.used
	after, _, _ := rule.next(s.old, &u.a) // less than what passed: it passes
	word := &u.a.row.words[rule.word]
	if rule.where == inTable {
		u.a.table.At(Ref(*word)).CompareAndSwap(s.after, after)
		return
	}
	*word = after
}
