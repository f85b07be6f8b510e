package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"ticketgate/engine"
	"ticketgate/engine/reactor"
)

// The listeners, by the names that systemd's socket units give them (FileDescriptorName=).
const (
	gateSocket      = "gate"
	handshakeSocket = "handshake"
	adminSocket     = "admin"
)

// sockets are listening sockets that the process was started with, by their names. They stand in for configured addresses.
type sockets map[string][]*os.File

// passedSockets takes what systemd has passed, if anything, and removes the variables that told of it. The gate may have any
// number of sockets, the others one each.
func passedSockets() (sockets, error) {
	s := sockets{}
	var wrong []error
	for _, f := range activation.Files(true) {
		name := f.Name()
		switch {
		case name != gateSocket && name != handshakeSocket && name != adminSocket:
			wrong = append(wrong, fmt.Errorf("systemd has passed a socket called %q: set FileDescriptorName= in its unit to gate, handshake or admin", name))
		case name != gateSocket && len(s[name]) > 0:
			wrong = append(wrong, fmt.Errorf("systemd has passed two sockets called %q: only the gate can have several", name))
		}
		s[name] = append(s[name], f)
	}
	_ = os.Unsetenv("LISTEN_PIDFDID") // which the library does not know yet
	if len(wrong) > 0 {
		s.close()
		return nil, errors.Join(wrong...)
	}
	return s, nil
}

// close closes what is left of the descriptors; the listeners have duplicates.
func (s sockets) close() {
	for _, files := range s {
		for _, f := range files {
			_ = f.Close()
		}
	}
}

// listenGate opens the gate's listeners and returns their addresses, of which there is at least one.
func (s sockets) listenGate(e *engine.Engine, configured []string) (at []net.Addr, err error) {
	for _, f := range s[gateSocket] {
		ln, err := net.FileListener(f)
		if err == nil {
			err = errors.Join(e.ListenOn(ln), ln.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("the socket that systemd has passed for the gate: %w", err)
		}
		at = append(at, ln.Addr())
	}
	if len(at) > 0 {
		return at, nil
	}
	for _, address := range configured {
		network, place := networkOf(address)
		addr, err := e.Listen(network, place)
		if err != nil {
			return nil, fmt.Errorf("listen.gate.address: %w", err)
		}
		at = append(at, addr)
	}
	return at, nil
}

// listenHTTP opens the listener called name: the socket that was passed, or one at the configured address.
func (s sockets) listenHTTP(name, configured string) (net.Listener, error) {
	if files := s[name]; len(files) > 0 {
		ln, err := listenFile(files[0])
		if err != nil {
			return nil, fmt.Errorf("the socket that systemd has passed as %s: %w", name, err)
		}
		return ln, nil
	}
	listen := net.Listen
	network, place := networkOf(configured)
	if network == "unix" {
		listen = func(_, path string) (net.Listener, error) { return reactor.ListenUnix(path) }
	}
	ln, err := listen(network, place)
	if err != nil {
		return nil, fmt.Errorf("listen.%s.address: %w", name, err)
	}
	return ln, nil
}

// listenAdmin opens the operators' socket: for the gateway's own user and its group.
func listenAdmin(path string) (net.Listener, error) {
	ln, err := reactor.ListenUnix(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, adminMode); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

const adminMode = 0o660

// listenFile is net.FileListener for what does listen.
func listenFile(f *os.File) (net.Listener, error) {
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	listens := 0
	cerr := raw.Control(func(fd uintptr) { listens, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) })
	if err = errors.Join(err, cerr); err == nil && listens == 0 {
		err = errors.New("it does not listen")
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// networkOf says how to listen at a configured address. Without an IP address it is IPv4 and IPv6; 0.0.0.0 is all of IPv4
// and [::] all of IPv6, where Go would take both for both.
func networkOf(address string) (network, place string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	at, err := netip.ParseAddrPort(address)
	switch {
	case err != nil || !at.Addr().IsUnspecified():
		return "tcp", address
	case at.Addr().Is4():
		return "tcp4", address
	}
	return "tcp6", address
}

// onlyHere reports whether only processes of this host reach a.
func onlyHere(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return !ok || t.IP.IsLoopback()
}

// place writes addresses as the configuration has them.
func place(addrs ...net.Addr) string {
	var all []string
	for _, a := range addrs {
		text := a.String()
		if a.Network() == "unix" {
			text = "unix:" + text
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}
