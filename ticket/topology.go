package ticket

// Shard names one primary of the store, with its replicas: the lowest hash slot it serves, 0 where there is only one. A
// shard that gives its lowest slot away has another name from then on, and so is another shard.
type Shard uint16

// Tags is how many shard tags there are, as many as a Redis Cluster has hash slots.
const Tags = 1 << 14

// ShardEpoch is the history of one shard, as its primary told it.
type ShardEpoch struct {
	Shard Shard
	Epoch Epoch // the present one; 0: not known
	Prev  Epoch // which this one has followed, by a promotion; 0: none that the server knows of
}

// Topology says which shard keeps what. It is never changed, only replaced.
type Topology struct {
	ID     uint64   // another for each other set of Shards; never 0. Tags may move between them meanwhile
	Shards []Shard  // at least one
	Tags   []uint16 // by tag: which of Shards keeps it; nil: all the first
	Nodes  uint16   // which of Shards keeps the list of nodes
}

// At returns which of t.Shards keeps s.
func (t *Topology) At(s Subject) int {
	if t.Tags == nil {
		return 0
	}
	return int(t.Tags[s.Tag()])
}

// Of returns the shard that keeps s.
func (t *Topology) Of(s Subject) Shard { return t.Shards[t.At(s)] }

// Find returns which of t.Shards is s, or -1.
func (t *Topology) Find(s Shard) int {
	for i, have := range t.Shards {
		if have == s {
			return i
		}
	}
	return -1
}

// One is the topology of a store that is one primary.
var One = &Topology{ID: 1, Shards: []Shard{0}}

// Epochs tells which epoch a ticket of a subject must have; 0: not known, and none is right.
type Epochs interface {
	Epoch(s Subject) Epoch
}
