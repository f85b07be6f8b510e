package upgradetest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"

	parser "ticketgate/engine/upgrade" // "upgrade" is a line of the tables
)

// Differs says how net/http reads the head at the start of raw otherwise than r, which is our reading of it: whether it
// takes it at all, method, target, host, the fields and an empty body. nil: it reads the same.
func Differs(raw []byte, r *parser.Request) error {
	theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return fmt.Errorf("net/http says %w", err)
	}
	body, err := io.ReadAll(theirs.Body)
	switch {
	case err != nil || len(body) > 0 || theirs.ContentLength != 0 || len(theirs.TransferEncoding) > 0:
		return fmt.Errorf("net/http reads a body: %q %w", body, err)
	case theirs.Method != string(r.Method) || theirs.RequestURI != string(r.Target) || theirs.Host != string(r.Host) ||
		theirs.ProtoMajor != 1 || theirs.ProtoMinor != 1:
		return fmt.Errorf("net/http reads %s %s at %s", theirs.Method, theirs.RequestURI, theirs.Host)
	case theirs.URL.EscapedPath() != string(r.Path) || theirs.URL.RawQuery != string(r.Query):
		return fmt.Errorf("net/http reads path %q and query %q", theirs.URL.EscapedPath(), theirs.URL.RawQuery)
	}
	return differentFields(r, theirs.Header)
}

// differentFields compares the header fields. net/http keeps Host elsewhere, and adds Cache-Control where there is only
// Pragma.
func differentFields(r *parser.Request, theirs http.Header) error {
	ours := http.Header{}
	for name, value := range r.Headers {
		if key := textproto.CanonicalMIMEHeaderKey(string(name)); key != "Host" {
			ours[key] = append(ours[key], string(value))
		}
	}
	if ours.Get("Pragma") == "no-cache" && ours["Cache-Control"] == nil {
		theirs.Del("Cache-Control")
	}
	if len(ours) != len(theirs) {
		return fmt.Errorf("net/http reads %q, we %q", theirs, ours)
	}
	for key, values := range ours {
		if !slices.Equal(theirs[key], values) {
			return fmt.Errorf("%s: net/http reads %q, we %q", key, theirs[key], values)
		}
	}
	return nil
}
