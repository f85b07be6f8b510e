package handshake

import (
	"errors"
	"net"
	"net/netip"
	"strings"

	"ticketgate/handshake/auth"
)

// identify finds out who calls, or refuses: no key, a malformed, an unknown, a wrong, an expired and a revoked one in the same words.
func (r *request) identify() bool {
	text, no := r.credential()
	if no != none {
		return r.refuse(&problem{reason: no})
	}
	who, err := r.policy.Keys.Authenticate(text, r.s.o.Clock.Wall(), r.peer())
	switch {
	case errors.Is(err, auth.ErrAddress):
		return r.refuse(&problem{reason: badAddress})
	case errors.Is(err, auth.ErrExpired):
		return r.refuse(&problem{reason: expiredKey})
	case err != nil:
		return r.refuse(&problem{reason: badKey})
	case r.s.o.Revoked != nil && r.s.o.Revoked.Key(who.Key):
		return r.refuse(&problem{reason: revokedKey})
	}
	r.who, r.client = who, who.Client
	return true
}

// credential returns the one credential of the request: in the key header, or as a bearer token (RFC 6750), or the same in
// both.
func (r *request) credential() (text []byte, no Reason) {
	keys := r.ctx.Request.Header.PeekAll(r.s.o.KeyHeader)
	bearer := string(r.ctx.Request.Header.Peek("Authorization")) // head.go has refused a second one
	switch {
	case len(keys) > 1:
		return nil, twoCredentials
	case len(keys) == 0 && bearer == "":
		return nil, noCredential
	case bearer == "":
		return keys[0], none
	}
	scheme, token, _ := strings.Cut(bearer, " ")
	token = strings.TrimLeft(token, " ")
	if len(keys) == 1 && (!strings.EqualFold(scheme, "bearer") || token != string(keys[0])) {
		return nil, twoCredentials
	}
	if !strings.EqualFold(scheme, "bearer") {
		return nil, noCredential
	}
	return []byte(token), none
}

// peer is the address that calls. No header is asked: none can be trusted without knowing the proxy it is from.
func (r *request) peer() netip.Addr {
	a, ok := r.ctx.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap()
}

// speakFor makes client the one the request is for. Anybody may name itself.
func (r *request) speakFor(client string) bool {
	if client == "" || client == r.client {
		return true
	}
	if !r.who.Has(auth.ScopeDelegate) {
		return r.refuse(&problem{reason: noScope})
	}
	r.client = client
	return true
}
