package redis

import (
	"context"
	"errors"
	"time"

	"ticketgate/ticket"
)

// scriptCount is for tests: it counts how often it ran.
var scriptCount = newScript("#!lua", "return redis.call('INCR', KEYS[1])")

func init() { scripts = append(scripts, scriptCount) }

// Outcome is what the store says of a command: its answer, or whether it may have run.
type Outcome struct {
	N    int64 // the answer
	Err  error
	Sent bool // with Err: it may have run
}

func outcome(r *reply) Outcome {
	if r.err != nil {
		return Outcome{Err: r.err, Sent: r.err.sent}
	}
	n, err := r.msg.AsInt64()
	return Outcome{N: n, Err: err, Sent: true}
}

func count(key string) command { return command{script: scriptCount, keys: []string{key}} }

// Count runs the counting script under each of keys, as one batch.
func (s *Store) Count(ctx context.Context, keys ...string) []Outcome {
	commands := make([]command, len(keys))
	for i, k := range keys {
		commands[i] = count(k)
	}
	out := make([]Outcome, len(keys))
	for i, r := range s.do(ctx, commands) {
		out[i] = outcome(&r)
	}
	return out
}

// CountRenewed is Count as a renewal, and the number of replicas that have it.
func (s *Store) CountRenewed(ctx context.Context, key string, replicas int) (Outcome, int) {
	m, acked, _, err := s.renewal(ctx, count(key), replicas)
	if err != nil {
		var down *unavailable
		return Outcome{Err: err, Sent: !errors.As(err, &down) || down.sent}, acked
	}
	n, err := m.AsInt64()
	return Outcome{N: n, Err: err}, acked
}

// EpochOf asks the primary of a shard for its epoch.
func (s *Store) EpochOf(ctx context.Context, shard ticket.Shard) (ticket.Epoch, error) {
	seen, err := s.Ask(ctx, shard)
	return seen.Epoch, err
}

// Vet is what the store says of a server that answers INFO so.
func Vet(info string, cluster bool) error {
	s := &Store{cluster: cluster}
	s.fill()
	return s.vet("server", parseInfo(info))
}

// SlotOf is the hash slot of a key.
func SlotOf(key string) int { return int(slotOf(key)) }

// Addresses are the primaries that the store knows.
func (s *Store) Addresses() []string {
	var out []string
	if l := s.layout.Load(); l != nil {
		for addr := range l.primaries {
			out = append(out, addr)
		}
	}
	return out
}

// The bounds of one primary.
const (
	QueueMax   = queueMax
	InFlight   = lanes * laneMax
	ProbeEvery = probeEvery
)

// FindClusterNodes puts answers to CLUSTER NODES together: which address serves each slot, and all primaries.
func FindClusterNodes(by []string, texts []string, secure bool) (owner map[int]string, masters []string, err error) {
	var c claims
	for i, text := range texts {
		if err := c.add(by[i], text, secure); err != nil {
			return nil, nil, err
		}
	}
	v := c.view()
	if v == nil {
		return nil, nil, nil
	}
	owner = make(map[int]string)
	for slot, m := range v.slots {
		if m >= 0 {
			owner[slot] = v.masters[m]
		}
	}
	return owner, v.masters, nil
}

// RenewalTime is the longest that a renewal takes.
const RenewalTime time.Duration = renewalTime
