package redis

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"ticketgate/ticket"
)

const (
	slotCount = 16384
	findEvery = 5 * time.Second        // that nothing has changed is looked at
	findGap   = 100 * time.Millisecond // however many commands are sent elsewhere
	findTime  = time.Second            // for one look at who is primary
)

// noShard is the name of a primary that serves no slot yet.
const noShard ticket.Shard = slotCount

// A view is what a finder has found out.
type view struct {
	masters []string // addresses of the primaries, those without slots too
	// slots says which of masters serves each slot, -1 for none. nil: the only one serves all.
	slots *[slotCount]int16
}

// A finder knows whom to ask for the primaries. Its methods are called by one goroutine.
type finder interface {
	// find asks. The error says why what is known stays.
	find(ctx context.Context) (*view, error)
	// watch calls again whenever somebody says that the answer has changed, until ctx ends.
	watch(ctx context.Context, again func())
	close()
}

// single is the finder of one server.
type single string

func (f single) find(context.Context) (*view, error) { return &view{masters: []string{string(f)}}, nil }
func (f single) watch(ctx context.Context, _ func()) { <-ctx.Done() }
func (f single) close()                              {}

// A layout is which primary serves what. It is never changed, only replaced; nil is one that is not known yet.
type layout struct {
	topology  *ticket.Topology
	slots     *[slotCount]int16   // by slot: which of served, -1 for none; nil: all the first
	served    []*primary          // as topology.Shards
	nodes     *primary            // keeps the list of nodes; nil: nobody does
	primaries map[string]*primary // by address, those without slots too
}

// of returns the primary of a shard, or nil.
func (l *layout) of(shard ticket.Shard) *primary {
	if l == nil {
		return nil
	}
	if at := l.topology.Find(shard); at >= 0 {
		return l.served[at]
	}
	return nil
}

// at returns the primary at an address and its shard, or nil.
func (l *layout) at(addr string) (*primary, ticket.Shard) {
	if l == nil || l.primaries[addr] == nil {
		return nil, noShard
	}
	p := l.primaries[addr]
	if at := slices.Index(l.served, p); at >= 0 {
		return p, l.topology.Shards[at]
	}
	return p, noShard
}

// Topology is which shard keeps what, as it is known now; nil: not known yet. It does not wait. Its ID is the same at all nodes
// that see the same shards, and stays over a failover.
func (s *Store) Topology() *ticket.Topology {
	if l := s.layout.Load(); l != nil {
		return l.topology
	}
	return nil
}

// finding keeps the layout up to date.
func (s *Store) finding() {
	defer s.finder.close()
	s.work.Go(func() { s.finder.watch(s.life, s.lookAgain) })
	if _, alone := s.finder.(single); alone {
		return // what there is to find stands in the configuration
	}
	for {
		wait := findEvery
		if s.lost.Load() || !s.up() {
			wait = probeEvery
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.life.Done():
		case <-s.look:
		case <-timer.C:
		}
		timer.Stop()
		if s.life.Err() != nil {
			return
		}
		s.find()
		gap := time.NewTimer(findGap)
		select {
		case <-s.life.Done():
		case <-gap.C:
		}
		gap.Stop()
	}
}

// lookAgain asks the finder to look again, soon. It does not wait.
func (s *Store) lookAgain() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// find asks once, and takes over what it hears.
func (s *Store) find() {
	ctx, cancel := context.WithTimeout(s.life, findTime)
	defer cancel()
	v, err := s.finder.find(ctx)
	s.lost.Store(err != nil)
	if err != nil {
		if s.life.Err() == nil && s.said.news(err.Error()) {
			s.log.Warn("ticket store: who is primary cannot be found out", "reason", err)
		}
		return
	}
	s.said.news("")
	s.takeOver(v)
}

// up reports whether all primaries answer.
func (s *Store) up() bool {
	l := s.layout.Load()
	if l == nil {
		return false
	}
	for _, p := range l.primaries {
		if !p.breaker.closed.Load() {
			return false
		}
	}
	return true
}

// takeOver makes a layout of v, with the primaries that stay, new ones and without those that are none any more.
func (s *Store) takeOver(v *view) {
	old := s.layout.Load()
	next := &layout{primaries: make(map[string]*primary, len(v.masters))}
	for _, addr := range v.masters {
		p, _ := old.at(addr)
		if p == nil {
			p = s.newPrimary(addr)
		}
		next.primaries[addr] = p
	}
	if v.slots == nil {
		p := next.primaries[v.masters[0]]
		next.topology, next.served, next.nodes = ticket.One, []*primary{p}, p
	} else {
		next.arrange(v, s.prefix)
	}
	if old != nil && old.topology.ID != next.topology.ID {
		s.log.Info("ticket store: other shards", "shards", fmt.Sprint(next.topology.Shards), "before", fmt.Sprint(old.topology.Shards))
	}
	s.layout.Store(next)
	if old != nil {
		for addr, p := range old.primaries {
			if next.primaries[addr] == nil {
				s.log.Info("ticket store: no primary any more", "server", addr)
				p.end()
			}
		}
	}
}

// arrange gives the primaries that serve slots their names as shards, in the order of these, which all nodes agree on.
func (l *layout) arrange(v *view, prefix string) {
	shardOf := make([]int16, len(v.masters)) // which shard a master is
	for i := range shardOf {
		shardOf[i] = -1
	}
	t := &ticket.Topology{Tags: make([]uint16, ticket.Tags)}
	l.slots = new([slotCount]int16)
	for slot, master := range v.slots {
		l.slots[slot] = -1
		if master < 0 {
			continue
		}
		if shardOf[master] < 0 { // this is its lowest slot
			shardOf[master] = int16(len(t.Shards))
			t.Shards = append(t.Shards, ticket.Shard(slot))
			l.served = append(l.served, l.primaries[v.masters[master]])
		}
		l.slots[slot] = shardOf[master]
	}
	for tag := range t.Tags {
		t.Tags[tag] = uint16(max(0, l.slots[slotOfTag(uint16(tag))])) // what nobody serves is refused before anything is sent
	}
	if at := l.slots[slotOf(prefix+"{nodes}")]; at >= 0 {
		t.Nodes, l.nodes = uint16(at), l.served[at]
	}
	sum := fnv.New64a()
	for _, shard := range t.Shards {
		_, _ = sum.Write(binary.BigEndian.AppendUint16(nil, uint16(shard))) // never fails
	}
	t.ID = max(1, sum.Sum64())
	l.topology = t
}

// slotOf is the hash slot of a key: of what stands in its first braces.
func slotOf(key string) uint16 {
	if _, tag, ok := strings.Cut(key, "{"); ok {
		if end := strings.IndexByte(tag, '}'); end > 0 {
			key = tag[:end]
		}
	}
	crc := uint16(0)
	for i := range len(key) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return crc % slotCount
}

// slotOfTag is the hash slot of the keys with a subject's shard tag.
func slotOfTag(tag uint16) uint16 { return slotOf(string(appendHex(nil, uint64(tag), 4))) }

// crcTable is CRC16 as XMODEM has it: polynomial 0x1021, from 0, not reflected.
var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			high := crc & 0x8000
			crc <<= 1
			if high != 0 {
				crc ^= 0x1021
			}
		}
		table[i] = crc
	}
	return table
}()
