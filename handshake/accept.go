package handshake

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"syscall"
	"time"
)

// Accept goes on when descriptors or memory run out, and waits longer each time.
const (
	backoffMin = 5 * time.Millisecond
	backoffMax = time.Second
)

// politeMax is how many connections beyond the limit are told so at once. Those beyond that are closed without a word.
const politeMax = 256

// Serve accepts until Shutdown, which it waits for no longer than the connections last. Listen comes first. It returns nil
// after Shutdown, else why it cannot accept any more.
func (s *Server) Serve() error {
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		return nil
	}
	s.running.Add(1) // under the lock: Shutdown waits either for all of it or for nothing
	s.mu.Unlock()
	defer s.running.Done()
	wait := time.Duration(0)
	for {
		c, err := s.listener.Accept()
		switch {
		case err == nil:
			wait = 0
			s.start(c)
		case s.stopping.Load():
			return nil
		case !passing(err):
			return err
		default:
			s.acceptErrors.Add(1)
			wait = min(max(2*wait, backoffMin), backoffMax)
			s.log.Warn("accept failed, trying again", "error", err, "after", wait)
			if !s.sleep(wait) {
				return nil
			}
		}
	}
}

// passing reports whether accept may succeed later: the process or the machine is short of something, or the client was
// gone before it was accepted.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sleep waits for d; false: Shutdown came first.
func (s *Server) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}

// start gives c a goroutine, which Shutdown waits for. Only Serve calls it.
func (s *Server) start(nc net.Conn) {
	c := &conn{Conn: nc, s: s, since: time.Now()}
	s.mu.Lock()
	open := len(s.conns)
	if open < s.o.Connections+politeMax {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if open >= s.o.Connections+politeMax {
		s.rejected[tooManyCallers].Add(1)
		_ = nc.Close() // nobody waits for this error
		return
	}
	s.running.Go(func() { s.serve(c, open < s.o.Connections) })
}

// serve runs one connection to its end. fasthttp comes in when the first request is complete.
func (s *Server) serve(c *conn, room bool) {
	defer s.forget(c)
	defer s.contain(c)
	switch {
	case !room:
		c.refuse(s.later(tooManyCallers))
	case c.next() == nil:
		if err := s.http.ServeConn(c); err != nil && !errors.Is(err, io.EOF) {
			s.log.Debug("connection failed", "error", err)
		}
		return // ServeConn has closed it
	}
	_ = c.Close() // the peer is told all it will be told
}

// contain keeps a fault in the reading of one connection from ending the process.
func (s *Server) contain(c *conn) {
	if v := recover(); v != nil {
		s.rejected[fault].Add(1)
		s.log.Error("fault in a connection", "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
		_ = c.Conn.Close()
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}
