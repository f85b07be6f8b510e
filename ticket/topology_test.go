package ticket_test

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"ticketgate/ticket"
)

func TestTopology(t *testing.T) {
	three := &ticket.Topology{ID: 9, Shards: []ticket.Shard{0, 5461, 10923}, Tags: make([]uint16, ticket.Tags), Nodes: 1}
	for tag := range three.Tags {
		three.Tags[tag] = uint16(tag % 3)
	}
	for _, c := range []struct {
		topology *ticket.Topology
		subject  ticket.Subject
		want     ticket.Shard
	}{
		{ticket.One, 0, 0},
		{ticket.One, 1<<64 - 1, 0},
		{three, 0, 0},
		{three, 1, 5461},
		{three, 2 | 1<<14, 10923}, // what lies above the tag does not count
		{three, 16383, 0},
		{three, 1<<63 | 16382, 10923},
	} {
		if got := c.topology.Of(c.subject); got != c.want {
			t.Errorf("shard of %#x: %d, want %d", c.subject, got, c.want)
		}
	}
	for s, want := range map[ticket.Shard]int{0: 0, 5461: 1, 10923: 2, 1: -1} {
		if got := three.Find(s); got != want {
			t.Errorf("shard %d is number %d, want %d", s, got, want)
		}
	}
}

// perTag is a store of two shards: odd tags have another epoch.
type perTag [2]ticket.Epoch

func (p perTag) Epoch(s ticket.Subject) ticket.Epoch { return p[s.Tag()&1] }

// TestEpochOfItsShard: a locator is good under the epoch of its own subject's shard, not of any.
func TestEpochOfItsShard(t *testing.T) {
	k := ring(t, keyLine("a", 1))
	for _, c := range []struct {
		subject ticket.Subject
		epoch   ticket.Epoch
		want    error
	}{
		{6, 100, nil}, {7, 101, nil}, {6, 101, ticket.ErrEpoch}, {7, 100, ticket.ErrEpoch},
	} {
		m, err := k.NewMinter(rand.Reader).Mint(noon.Add(time.Minute), c.epoch, c.subject, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.NewChecker().Check(m.Text[:], noon, perTag{100, 101}); !errors.Is(err, c.want) {
			t.Errorf("subject %d, epoch %d: %v, want %v", c.subject, c.epoch, err, c.want)
		}
	}
}
