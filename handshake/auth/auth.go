// Package auth says who a caller of the handshake API is. Nothing here waits or logs, and no error carries a byte of what
// the caller sent.
package auth

import (
	"slices"
	"strings"
	"time"
)

// An Identity is a caller that proved who it is. It is never written to; its strings live as long as the Keys it is from.
type Identity struct {
	Key     string    // id of the credential, safe to log
	Client  string    // who it speaks for unless it delegates
	Product string    // what it may ask for
	Plan    string    // whose limits apply
	Scopes  []string  // ScopeDelegate, ScopeAuthorize, ScopeStream+name
	Expires time.Time // when it ends, and the sockets that it asked for with it; zero: never
}

// The scopes a credential may have.
const (
	ScopeDelegate  = "delegate"  // it may name the client that a ticket, or a question about limits, is for
	ScopeAuthorize = "authorize" // it is another gateway, which may have tickets checked and spent
	ScopeStream    = "stream:"   // + name: any of these narrows the product's streams to the named ones
)

// Has reports whether i holds the scope.
func (i *Identity) Has(scope string) bool { return slices.Contains(i.Scopes, scope) }

// MayOpen reports whether i's own scopes allow the stream. Its product has to allow it as well.
func (i *Identity) MayOpen(stream string) bool {
	narrowed := false
	for _, s := range i.Scopes {
		if name, ok := strings.CutPrefix(s, ScopeStream); ok {
			if name == stream {
				return true
			}
			narrowed = true
		}
	}
	return !narrowed
}

func validScope(s string) bool {
	name, ok := strings.CutPrefix(s, ScopeStream)
	return s == ScopeDelegate || s == ScopeAuthorize || ok && name != ""
}
