package reactor

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Dial connects to to, from the address from if that is valid, without waiting, and returns the socket's ID: Open comes
// when it is connected, Closed with CauseDial when that failed. The kernel may try for minutes, so the caller arms a timer.
// An error means that there is no socket and no callback: ErrFull at MaxConns or without a descriptor, else why the
// address cannot be used. Neither address may have a zone. On the loop only.
func (l *Loop) Dial(k Kind, to netip.AddrPort, from netip.Addr) (ID, error) {
	switch {
	case l.stopping:
		return 0, ErrStopped
	case int(k) >= len(l.o.Handlers):
		return 0, fmt.Errorf("reactor: dial: no handler of kind %d", k)
	case !to.IsValid() || to.Addr().Zone() != "" || from.Zone() != "":
		return 0, fmt.Errorf("reactor: dial: unusable address %v", to)
	case !l.r.enterOne(l.o.MaxConns):
		return 0, ErrFull
	}
	fd, pending, err := l.sys.dial(to, from)
	if err == nil && fd >= slotMax {
		l.sys.close(fd, true)
		err = syscall.EMFILE
	}
	if err != nil {
		l.r.conns.Add(-1)
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return 0, ErrFull
		}
		return 0, fmt.Errorf("reactor: dial: %w", err)
	}
	l.stat.dialed.Add(1)
	id, r := l.enter(fd, k, stateDialing, to)
	r.flags |= flagBlocked // until it is writable nothing is sent
	if pending != 0 {
		l.end(id, r, CauseDial, pending)
	} else {
		l.watch(id, r)
	}
	return id, nil
}

// dialed looks how a dial stands. The event may have been meant for the number's former owner.
func (l *Loop) dialed(id ID, r *row) {
	switch errno := l.sys.connected(int(id.Slot())); errno {
	case syscall.EINPROGRESS:
		return
	case 0:
	default:
		l.end(id, r, CauseDial, errno)
		return
	}
	r.state = stateOpen
	r.flags &^= flagBlocked
	l.soil(id, r) // what was written while it dialed
	l.watch(id, r)
	if r.state == stateOpen {
		l.call(opOpen, id, r, nil)
	}
}
