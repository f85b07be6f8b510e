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
		if r.s.o.Revoked != nil {
			// It is taken back, whether that is noted or not: without the note it passes for spent.
			if err := r.s.o.Revoked.TakenBack(ctx, subject, hash, r.who.Key); err != nil {
				r.s.log.Warn("that a ticket was taken back is not noted", "error", err)
			}
		}
		r.ctx.SetStatusCode(fasthttp.StatusNoContent)
	}
}

// state is GET /v1/tickets/{id}: what became of a ticket of the caller's.
func (r *request) state() {
	if !r.identify() || !r.noQuery() {
		return
	}
	id := strings.TrimPrefix(r.path, "/v1/tickets/")
	ctx, cancel := context.WithTimeout(context.Background(), storeMax)
	defer cancel()
	state, err := "", error(nil)
	if r.s.o.Revoked != nil {
		state, err = r.s.o.Revoked.State(ctx, id, r.who.Key)
	}
	switch {
	case err != nil:
		r.refuse(r.s.later(storeDown))
	case state == "":
		r.refuse(&problem{reason: noTicket})
	default:
		out := appendString(append(appendString([]byte(`{"id":`), id), `,"state":`...), state)
		r.answer(fasthttp.StatusOK, append(out, '}'))
	}
}
