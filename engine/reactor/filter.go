package reactor

import (
	"errors"
	"io"
	"net/netip"
	"syscall"
)

// Filters, in the order of this file:
//
//	SetFilter         what stands between the wire and the handler: TLS in user space
//	arrived, pump     wire > Feed, Read > Data
//	gather, seal      Write > the callback's plain bytes > Filter.Write > WriteWire > the queue of write.go
//	Offload           the kernel does it from here on; record: what it cannot tell by recv(2)

// A Filter stands between the bytes on a socket's wire and those that its handler sees and writes. All calls come on the
// socket's loop. A panic in one ends the socket by RST.
type Filter interface {
	// Feed brings bytes as they came off the wire; wire is good until Feed returns. It is not called again before Read has
	// returned 0, so a filter holds one reading of Options.ReadBuffer bytes and what it had not decoded of the one before.
	Feed(l *Loop, id ID, wire []byte)
	// Read decodes into plain, which is at least RecordMax long. 0, nil: nothing more until the next Feed. io.EOF: the peer has
	// said that nothing follows. Another error ends the socket in order: what the filter has written goes out, then FIN, and
	// Closed says CauseFilter.
	Read(l *Loop, id ID, plain []byte) (int, error)
	// Write encodes what the handler has written in a callback and passes it to Loop.WriteWire. plain may be changed and is good
	// until Write returns. An error ends the socket as an error of Read does.
	Write(l *Loop, id ID, plain []byte) error
	// CloseWrite comes once, behind the last Write and before FIN. It may call WriteWire.
	CloseWrite(l *Loop, id ID)
	// Held is how many bytes of memory hold what came off the wire and is not decoded.
	Held() int
	// Gone is the last call, after the handler's Closed.
	Gone(l *Loop, id ID)
}

// RecordMax is the least room that Filter.Read is given: a TLS record's 16 KiB, and as much as one can be longer.
const RecordMax = 16<<10 + 256

// ErrRekey is what Handler.Fault gets when the peer of an offloaded socket changes its keys: the kernel cannot follow.
var ErrRekey = errors.New("reactor: the peer has changed its keys")

// errNotOffloadable is for a socket that was closed, or whose bytes wait, when it was to be offloaded.
var errNotOffloadable = errors.New("reactor: a socket with bytes under way cannot be offloaded")

// filtered is a socket's filter and what its handler has written in this callback.
type filtered struct {
	f     Filter
	plain []byte
}

// SetFilter puts f between id and its handler. What Data leaves unused in the callback that sets it is fed to f. nil takes
// the filter away, without Gone. On the loop only.
func (l *Loop) SetFilter(id ID, f Filter) {
	r := l.active(id)
	if r == nil {
		return
	}
	if r.flags&flagDeferred != 0 {
		l.submit()
	}
	if r.filter != 0 {
		l.seal(id, r)
		l.dropFilter(r)
	}
	if f != nil {
		r.filter, _ = l.filters.get()
		l.filters.items[r.filter].f = f
	}
}

func (l *Loop) dropFilter(r *row) {
	if it := &l.filters.items[r.filter]; it.plain != nil {
		l.pool.put(it.plain)
	}
	l.filters.put(r.filter)
	r.filter = 0
}

// SetPeer replaces the address that Peer tells: a proxy in front has named it. On the loop only.
func (l *Loop) SetPeer(id ID, peer netip.AddrPort) {
	if r := l.row(id); r != nil && peer.IsValid() {
		r.peer, r.port = peer.Addr().As16(), peer.Port()
	}
}

// Refilter calls the filter's Read soon after the current callback, and Data with what it gives, as if bytes had come. On
// the loop only.
func (l *Loop) Refilter(id ID) { l.Rerun(id) }

// Wired is how many bytes wait for the kernel, those of a filter encoded; what the handler has written in this callback is
// not among them. On the loop only.
func (l *Loop) Wired(id ID) int {
	if r := l.row(id); r != nil {
		return int(l.queues.items[r.out].wait)
	}
	return 0
}

// arrived takes n bytes that came off the wire into l.wire.
func (l *Loop) arrived(id ID, r *row, n int) {
	l.withFilter(id, r, func(f Filter) { f.Feed(l, id, l.wire[:n]) })
	l.pump(id, r)
}

// pump hands on what the filter can decode, until it needs more of the wire. One that waits for its turn may have left more than
// there is room for in front of what comes next.
func (l *Loop) pump(id ID, r *row) {
	for r.filter != 0 && r.state == stateOpen && r.flags&(flagPaused|flagFull|flagRerun) == 0 {
		n, err := l.decode(id, r)
		if n > 0 {
			l.feed(id, r, n)
		}
		switch {
		case errors.Is(err, io.EOF):
			l.finished(id, r)
			return
		case err != nil:
			l.broken(id, r)
			return
		case n == 0:
			return
		}
	}
}

// decode fills the loop's buffer with as many records as have room.
func (l *Loop) decode(id ID, r *row) (n int, err error) {
	l.takeBack()
	room := l.in[l.o.LeftoverMax:]
	l.withFilter(id, r, func(f Filter) {
		for len(room)-n >= RecordMax && err == nil {
			var m int
			if m, err = f.Read(l, id, room[n:]); m == 0 {
				return
			}
			n += m
		}
	})
	return n, err
}

// broken ends a socket whose filter gave up.
func (l *Loop) broken(id ID, r *row) {
	if r.state == stateOpen {
		r.flags |= flagSaid // what it had to say it has written
		l.hangUp(id, r, CauseFilter)
	}
}

// withFilter calls do with r's filter. A panic ends the socket, not the loop.
func (l *Loop) withFilter(id ID, r *row, do func(Filter)) {
	defer func() {
		if v := recover(); v != nil {
			l.panicked("filter", v)
			r.flags |= flagReset
			l.end(id, r, CauseFault, 0)
		}
	}()
	do(l.filters.items[r.filter].f)
}

// gather keeps n bytes of what a callback writes through a filter and returns them for the caller to fill.
func (l *Loop) gather(id ID, r *row, n, limit int) ([]byte, error) {
	if err := l.admit(id, r, n, limit); err != nil {
		return nil, err
	}
	l.soil(id, r)
	it := &l.filters.items[r.filter]
	from := len(it.plain)
	if from+n > cap(it.plain) {
		more := append(l.pool.get(max(from+n, 2*cap(it.plain))), it.plain...)
		if it.plain != nil {
			l.pool.put(it.plain)
		}
		it.plain = more
	}
	it.plain = it.plain[:from+n]
	l.unsent += n
	return it.plain[from : from+n : from+n], nil
}

// seal has the filter encode what was gathered and, at the end, say that nothing follows.
func (l *Loop) seal(id ID, r *row) {
	l.sealing = id
	defer func() { l.sealing = 0 }()
	it := &l.filters.items[r.filter]
	if p := it.plain; p != nil {
		it.plain = nil
		var err error
		l.withFilter(id, r, func(f Filter) { err = f.Write(l, id, p) })
		l.pool.put(p)
		if err != nil {
			l.broken(id, r)
		}
	}
	if r.state == stateClosing && r.flags&flagSaid == 0 {
		r.flags |= flagSaid
		l.withFilter(id, r, func(f Filter) { f.CloseWrite(l, id) })
	}
}

// WriteWire queues b, which is copied, behind what waits for id: past the filter and past QueueMax, so it is for filters
// only. On the loop only.
func (l *Loop) WriteWire(id ID, b []byte) error {
	r := l.row(id)
	if r == nil || r.state == stateDying || r.flags&flagFinSent != 0 {
		return ErrGone
	}
	if l.sealing != id {
		l.soil(id, r)
	}
	if len(b) > 0 {
		l.enqueue(r, b)
	}
	return nil
}

// Offload hands the socket's TLS to the kernel: tx and rx are its struct tls12_crypto_info_*, as setsockopt(2) takes them.
// The filter is taken away, without Gone; it must hold no byte that was not decoded, and Wired must be 0. After an error
// that wraps ErrNoOffload the socket is as it was; after another one it is of no use. On the loop only.
func (l *Loop) Offload(id ID, tx, rx []byte) error {
	r := l.active(id)
	if r == nil || r.filter == 0 || r.out != 0 || l.filters.items[r.filter].plain != nil {
		return errNotOffloadable
	}
	if err := l.sys.offload(int(id.Slot()), tx, rx); err != nil {
		return err
	}
	l.dropFilter(r)
	r.flags |= flagOffload
	l.stat.offloaded.Add(1)
	return nil
}

// ErrNoOffload says that this kernel has no TLS, or not for such sockets.
var ErrNoOffload = errors.New("reactor: no TLS in this kernel")

// Types of TLS records and alerts that the kernel hands to us (RFC 8446 5.1, 6).
const (
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23
	alertClose      = 0 // close_notify
)

// record deals with a record of an offloaded socket that recv(2) does not give: EIO stands for it.
func (l *Loop) record(id ID, r *row) {
	var b [2]byte
	switch kind, n, errno := l.sys.record(int(id.Slot()), b[:]); {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0:
		l.end(id, r, CauseReset, errno)
	case r.state == stateClosing: // only FIN matters. An alert has been taken; of a longer record the rest would come again and again
		if r.dropped++; kind != recordAlert || r.dropped > discardMax {
			l.end(id, r, r.cause, 0)
		}
	case kind == recordAlert && n == 2 && b[1] == alertClose:
		l.finished(id, r)
	case kind == recordHandshake: // KeyUpdate: a client sends nothing else after its Finished (RFC 8446 4.6)
		l.rekey(id, r)
	default:
		l.end(id, r, CauseReset, syscall.ECONNABORTED)
	}
}

// rekey lets the handler say a last word: what we send is still under the old key.
func (l *Loop) rekey(id ID, r *row) {
	if r.state != stateOpen {
		return
	}
	l.callFault(id, r, ErrRekey)
	if r.state == stateOpen {
		l.hangUp(id, r, CauseFilter)
	}
}
