package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"ticketgate/bench"
)

// Classes of errors besides http_NNN (a status other than 101 or 201; a gateway's with its name for the problem behind it) and
// close_NNNN (a close frame).
const (
	classRefused  = "refused"       // nobody listens
	classReset    = "reset"         // the other side broke the connection off
	classTimeout  = "timeout"       // nobody answered within --timeout, or for so long that the kernel gave up
	classEnded    = "ended"         // the connection ended without a close frame
	classPorts    = "no_port"       // the client ran out of local ports
	classFiles    = "no_file"       // or of descriptors
	classWrong    = "wrong_answer"  // an answer that differs from the message, or that nothing was sent for
	classNothing  = "no_answer"     // none came until the end
	classProtocol = "protocol"      // what came is no HTTP, no WebSocket, no ticket
	classDNS      = "dns"           // the name of a gate has no address
	classTLS      = "tls"           // the gate speaks TLS, which bench does not
	classUnsent   = "unsent"        // the other side does not read: more waited for it than the client has memory for
	classOther    = "other"         // anything else
	classSlow     = "no_connection" // an operation was due, and all connections of the client were busy
)

// problemOf is ":name" of the problem document that body begins (RFC 9457), whose type ends with /problems/name; "" of another
// body: a class must come from a short list.
func problemOf(body string) string {
	_, rest, ok := strings.Cut(body, "/problems/")
	name, _, end := strings.Cut(rest, `"`)
	if !ok || !end || name == "" || len(name) > 40 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return ""
	}
	return ":" + name
}

// classOf says what kind of error err is.
func classOf(err error) string {
	var status *bench.StatusError
	var cl *bench.CloseError
	var errno syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.As(err, &status):
		return fmt.Sprintf("http_%d", status.Status) + problemOf(status.Body)
	case errors.As(err, &cl):
		return fmt.Sprintf("close_%d", cl.Code)
	case errors.As(err, &dns):
		return classDNS
	case errors.Is(err, errSecure):
		return classTLS
	case errors.Is(err, bench.ErrEcho):
		return classWrong
	case errors.Is(err, bench.ErrHead), errors.Is(err, bench.ErrAccept), errors.Is(err, bench.ErrMasked), errors.Is(err, bench.ErrLength),
		errors.Is(err, bench.ErrAnswer), errors.Is(err, bench.ErrTicket), errors.Is(err, bench.ErrLeftover):
		return classProtocol
	case errors.Is(err, bench.ErrTimeout):
		return classTimeout
	case errors.Is(err, bench.ErrUnsent):
		return classUnsent
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return classEnded
	case !errors.As(err, &errno):
		return classOther
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return classRefused
	case syscall.ECONNRESET, syscall.EPIPE:
		return classReset
	case syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
		return classTimeout
	case syscall.EADDRNOTAVAIL, syscall.EADDRINUSE:
		return classPorts
	case syscall.EMFILE, syscall.ENFILE:
		return classFiles
	default:
		return classOther
	}
}
