package redis

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/ticket"
)

// errAnswer is an answer that our own script does not give: something else wrote under our keys or scripts.
var errAnswer = fmt.Errorf("%w: unexpected answer", ticket.ErrUnavailable)

const (
	epochsLen  = 16            // two epochs
	verdictLen = 1 + epochsLen // and a result in front of them
)

// epochs reads what begins with an epoch and the one before it.
func epochs(text string) (ticket.ShardEpoch, bool) {
	if len(text) < epochsLen {
		return ticket.ShardEpoch{}, false
	}
	v, err := strconv.ParseUint(text[:epochsLen], 16, 64)
	return ticket.ShardEpoch{Epoch: ticket.Epoch(v >> 32), Prev: ticket.Epoch(v)}, err == nil
}

// verdict reads what redeem.lua and assert.lua answer, up to the grant.
func verdict(text string) (result byte, seen ticket.ShardEpoch, ok bool) {
	if len(text) < verdictLen {
		return 0, seen, false
	}
	seen, ok = epochs(text[1:])
	return text[0] - '0', seen, ok
}

// seenOf reads the first two of parts, an epoch and the one before it.
func seenOf(parts []rueidis.RedisMessage) (ticket.ShardEpoch, error) {
	epoch, err := number(&parts[0], 16, 32)
	if err != nil {
		return ticket.ShardEpoch{}, err
	}
	before, err := number(&parts[1], 16, 32)
	return ticket.ShardEpoch{Epoch: ticket.Epoch(epoch), Prev: ticket.Epoch(before)}, err
}

func number(m *rueidis.RedisMessage, base, bits int) (uint64, error) {
	text, err := m.ToString()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, base, bits)
}

// incarnations returns them in order; nil: there are none.
func incarnations(items []rueidis.RedisMessage) ([]ticket.Incarnation, error) {
	var out []ticket.Incarnation
	for i := range items {
		n, err := number(&items[i], 16, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, ticket.Incarnation(n))
	}
	slices.Sort(out)
	return out, nil
}

// A reader takes fields of fixed length off a text. After the first that is wrong it reads zeros.
type reader struct {
	text string
	bad  bool
}

func (r *reader) take(n int) string {
	if r.bad || len(r.text) < n {
		r.bad = true
		return ""
	}
	field := r.text[:n]
	r.text = r.text[n:]
	return field
}

func (r *reader) number(digits, base int) uint64 {
	v, err := strconv.ParseUint(r.take(digits), base, 64)
	if err != nil {
		r.bad = true
	}
	return v
}

// entry reads an entry of renew.lua, where its fields are listed.
func (r *reader) entry(now time.Time) (n ticket.NodeView) {
	n.Dead = r.take(1) == "d"
	n.Left = time.UnixMilli(int64(r.number(16, 10))).Sub(now)
	r.number(20, 10) // of the last renewal
	r.number(8, 10)  // of the grace
	n.Topology = r.number(16, 16)
	if count := r.number(4, 16); count > 0 && !r.bad {
		n.Registered = make([]ticket.ShardEpoch, 0, count)
		for range count {
			shard, epoch := r.number(4, 16), r.number(8, 16)
			n.Registered = append(n.Registered, ticket.ShardEpoch{Shard: ticket.Shard(shard), Epoch: ticket.Epoch(epoch)})
		}
	}
	n.Name = r.take(len(r.text))
	return n
}
