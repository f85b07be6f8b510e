package engine

import (
	"hash/maphash"
	"sync"

	"ticketgate/internal/offheap"
)

// names are the strings of open sockets, once for each client and key of the node, in cells without pointers: 32 bytes and
// a link of 4 for a client of at most 14 bytes, 32 more for each further 28.
//
//	index ──> name: client's first 14 bytes, key ──> name of the key
//	              └──> rest: 28 more ──> rest ...
//
// Loops take one lock, at a socket's opening and end.
type names struct {
	mu    sync.Mutex
	seed  maphash.Seed
	index *offheap.Index
	rows  *offheap.Rows[name]
	rests *offheap.Rows[rest]
	text  []byte // one name, put together
}

// name is one client of one key; or one key, whose own key is 0.
type name struct {
	next uint32 // in its chain
	refs uint32
	key  uint32 // number of another name
	more uint32 // number of a rest
	size uint16
	text [14]byte
}

type rest struct {
	more uint32
	text [28]byte
}

func newNames() *names {
	return &names{seed: maphash.MakeSeed(), index: offheap.NewIndex(), rows: offheap.NewRows[name](), rests: offheap.NewRows[rest]()}
}

// hold returns the number of client and key, to be released once. A text ends after 65,535 bytes; ours have at most 128.
func (n *names) hold(client, key string) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.find(client, n.find(key, 0))
	n.rows.At(i).refs++
	if k := n.rows.At(i).key; k != 0 {
		n.rows.At(k).refs++
	}
	return i
}

// release gives back what hold returned; 0 is nobody.
func (n *names) release(i uint32) {
	if i == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := n.rows.At(i).key
	n.unref(i)
	if key != 0 {
		n.unref(key)
	}
}

func (n *names) unref(i uint32) {
	r := n.rows.At(i)
	if r.refs--; r.refs > 0 {
		return
	}
	n.index.Leave(i, n.hash(n.gather(r), r.key), n.of)
	for more := r.more; more != 0; {
		next := n.rests.At(more).more
		n.rests.Put(more)
		more = next
	}
	n.rows.Put(i)
}

// client returns the text of a number that is held.
func (n *names) client(i uint32) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return string(n.gather(n.rows.At(i)))
}

// both appends client and key of a number that is held to dst, and returns where the key begins.
func (n *names) both(dst []byte, i uint32) (text []byte, key int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.rows.At(i)
	dst = append(dst, n.gather(r)...)
	key = len(dst)
	if r.key != 0 {
		dst = append(dst, n.gather(n.rows.At(r.key))...)
	}
	return dst, key
}

// find returns the number of text under key, which it makes if need be.
func (n *names) find(text string, key uint32) uint32 {
	text = text[:min(len(text), 1<<16-1)]
	h := maphash.String(n.seed, text) + spread(key)
	for i := *n.index.First(h); i != 0; i = n.rows.At(i).next {
		if r := n.rows.At(i); r.key == key && int(r.size) == len(text) && string(n.gather(r)) == text {
			return i
		}
	}
	i, r := n.rows.Get()
	r.key, r.size = key, uint16(len(text))
	at := &r.more
	for text = text[copy(r.text[:], text):]; text != ""; {
		var c *rest
		*at, c = n.rests.Get()
		text = text[copy(c.text[:], text):]
		at = &c.more
	}
	n.index.Enter(i, h, &r.next, n.of)
	return i
}

// gather puts the text of r together, good until the next call.
func (n *names) gather(r *name) []byte {
	n.text = append(n.text[:0], r.text[:min(int(r.size), len(r.text))]...)
	for more := r.more; more != 0; {
		c := n.rests.At(more)
		n.text = append(n.text, c.text[:min(int(r.size)-len(n.text), len(c.text))]...)
		more = c.more
	}
	return n.text
}

func (n *names) hash(text []byte, key uint32) uint64 {
	return maphash.Bytes(n.seed, text) + spread(key)
}

func spread(key uint32) uint64 { return uint64(key) * 0x9e3779b97f4a7c15 }

// of is for the index.
func (n *names) of(i uint32) (hash uint64, next *uint32) {
	r := n.rows.At(i)
	return n.hash(n.gather(r), r.key), &r.next
}
