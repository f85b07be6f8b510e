package storetest

import (
	"testing"
	"time"

	"ticketgate/ticket"
)

// Looks tests a ticket.Looker. advance lets time pass on the store's clock.
func Looks(t *testing.T, store ticket.Store, advance func(t testing.TB, d time.Duration)) {
	look, ok := store.(ticket.Looker)
	if !ok {
		t.Fatal("the store cannot look")
	}
	view, err := store.Renew(t.Context(), &ticket.RenewRequest{Incarnation: 1, Name: "looks", Lease: time.Hour, Number: 1, Enter: true, Topology: ticket.One.ID})
	if err != nil {
		t.Fatal(err)
	}
	issue := func(h byte) *ticket.IssueRequest {
		r := &ticket.IssueRequest{Ticket: ticket.Hash{h}, Secret: ticket.SecretHash{h}, Subject: 77, Limit: 10, Outstanding: 10, Life: time.Minute, Owner: "key-1",
			Grant: []byte("what it grants"), Epoch: view.Seen.Epoch}
		if a, err := store.Issue(t.Context(), r); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		return r
	}
	want := func(what string, r *ticket.IssueRequest, owner string, unused, revoked bool) {
		t.Helper()
		l, err := look.Look(t.Context(), r.Subject, r.Ticket, owner)
		if err != nil || (l.Grant != nil) != unused || l.Revoked != revoked || unused && string(l.Grant) != "what it grants" {
			t.Errorf("%s: %q, revoked %v, %v", what, l.Grant, l.Revoked, err)
		}
	}
	r := issue(1)
	want("unused", r, "key-1", true, false)
	if l, err := look.Look(t.Context(), r.Subject^1, r.Ticket, ""); err != nil || l.Grant != nil {
		t.Errorf("of another tag: %q, %v", l.Grant, err)
	}
	if ok, err := store.Revoke(t.Context(), &ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: "key-1"}); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	want("taken back, and not noted", r, "key-1", false, false)
	if err := look.Note(t.Context(), r.Subject, r.Ticket, "key-1", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	want("taken back", r, "key-1", false, true)
	want("taken back, for anybody", r, "", false, true)
	want("taken back by another", r, "key-2", false, false)
	short := issue(2)
	if err := look.Note(t.Context(), short.Subject, short.Ticket, "key-1", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	advance(t, 60*time.Millisecond)
	want("a note that is over", short, "key-1", true, false)
	spent := issue(3)
	as := make([]ticket.RedeemAnswer, 1)
	store.Redeem(t.Context(), []ticket.RedeemRequest{{Ticket: spent.Ticket, Secret: spent.Secret, Epoch: view.Seen.Epoch,
		Held: ticket.Held{Subject: spent.Subject, Incarnation: 1, Count: 1, Number: 1}}}, as)
	if as[0].Result != ticket.RedeemOK {
		t.Fatalf("redeem: %v", as[0].Result)
	}
	want("spent", spent, "key-1", false, false)
}
