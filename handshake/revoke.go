package handshake

import (
	"context"
	"strings"

	"github.com/valyala/fasthttp"

	"ticketgate/ticket"
)

// revoke is DELETE /v1/tickets/{id}. An id that no ticket can have, a ticket of somebody else and a spent one get the same
// answer.
func (r *request) revoke() {
	if !r.identify() || !r.noQuery() {
		return
	}
	_, subject, hash, err := ticket.ParsePublicID(strings.TrimPrefix(r.path, "/v1/tickets/"))
	if err != nil {
		r.refuse(&problem{reason: noTicket})
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeMax)
	defer cancel()
	revoked, err := r.s.o.Node.Revoke(ctx, &ticket.RevokeRequest{Ticket: hash, Subject: subject, Owner: r.who.Key})
	switch {
	case err != nil:
		r.refuse(r.s.later(storeDown))
	case !revoked:
		r.refuse(&problem{reason: noTicket})
	default:
		r.ctx.SetStatusCode(fasthttp.StatusNoContent)
	}
}
