package redistest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Do sends one command on a connection of its own, as the user who may do everything, and returns the answer: a string, an
// int64, nil or a []any of these. An error that the server answers is a Refusal.
func (s *Server) Do(args ...string) (any, error) {
	all, err := s.DoAll(args)
	if err != nil {
		return nil, err
	}
	if refusal, ok := all[0].(Refusal); ok {
		return nil, refusal
	}
	return all[0], nil
}

// DoAll is Do for commands one after the other on one connection. What the server refuses has its Refusal for an answer.
func (s *Server) DoAll(commands ...[]string) ([]any, error) {
	c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(doWait)); err != nil {
		return nil, err
	}
	if s.certs != nil {
		c = tls.Client(c, s.certs.Client)
	}
	r := bufio.NewReader(c)
	if s.secured {
		if _, err := exchange(c, r, "AUTH", adminUser, adminPassword); err != nil {
			return nil, err
		}
	}
	answers := make([]any, len(commands))
	for i, args := range commands {
		v, err := exchange(c, r, args...)
		var refusal Refusal
		if errors.As(err, &refusal) {
			v, err = refusal, nil
		}
		if err != nil {
			return nil, err
		}
		answers[i] = v
	}
	return answers, nil
}

// doWait is how long an answer may take.
const doWait = 5 * time.Second

// A Refusal is an error that the server answered.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// exchange sends a command and reads its answer.
func exchange(w io.Writer, r *bufio.Reader, args ...string) (any, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return nil, err
	}
	return read(r)
}

// read reads one RESP2 value.
func read(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("an empty line is no answer")
	}
	kind, text := line[0], line[1:]
	if kind == '+' {
		return text, nil
	}
	if kind == '-' {
		return nil, Refusal(text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("answer %q: %w", line, err)
	}
	switch {
	case kind == ':':
		return n, nil
	case n < 0:
		return nil, nil
	case kind == '$':
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	case kind == '*':
		return readArray(r, int(n))
	}
	return nil, fmt.Errorf("answer %q is of no known kind", line)
}

func readArray(r *bufio.Reader, n int) (any, error) {
	all := make([]any, n)
	for i := range all {
		v, err := read(r)
		var refusal Refusal
		if errors.As(err, &refusal) {
			v, err = refusal, nil
		}
		if err != nil {
			return nil, err
		}
		all[i] = v
	}
	return all, nil
}

// must is Do that fails the test.
func (s *Server) must(args ...string) any {
	s.tb.Helper()
	v, err := s.Do(args...)
	if err != nil {
		s.tb.Fatalf("redis-server %s: %v: %v", s.Addr(), args, err)
	}
	return v
}

// texts is the answer of a command that answers texts.
func (s *Server) texts(args ...string) []string {
	all, _ := s.must(args...).([]any)
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = fmt.Sprint(v)
	}
	return out
}

// role is what the server says it is: master, slave, or none if it does not answer.
func (s *Server) role() string {
	v, err := s.Do("ROLE")
	if all, ok := v.([]any); err == nil && ok && len(all) > 0 {
		return fmt.Sprint(all[0])
	}
	return "none"
}
