package main

import (
	"errors"
	"testing"
	"time"
)

// What the bare programs get for an admission is as long as what the gateway gets: barehttp answers with one of its tickets, and the
// upgrade with that is no shorter than those with others.
func TestBareAdmissions(t *testing.T) {
	apart(t)
	r, err := newRunner(t.Context(), options{short: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	err = errors.Join(r.buildGateway(""), r.command("go", "build", "-C", "tools/peers", "-o", r.dir+"/", "./barehttp", "./epollaccept"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.loop()
	if err != nil {
		t.Fatal(err)
	}
	g, err := r.gatewayWith(setup{})
	if err != nil {
		t.Fatal(err)
	}
	_, api, bytes, err := r.bareAPI(l, g)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := r.fetch(l, g, 2)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := r.fetch(l, &gateway{api: api, host: g.host, mint: g.mint}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ours {
		if len(bare[i]) != len(ours[i]) {
			t.Errorf("the bare program gets %d bytes, the gateway %d:\n%s%s", len(bare[i]), len(ours[i]), bare[i], ours[i])
		}
	}
	if ticket, err := r.ticket(l, g); err != nil || bytes != len(ticket) {
		t.Errorf("the gateway answers with %d bytes, barehttp with %d, %v", len(ticket), bytes, err)
	}
	floor, err := r.bareAdmissions(l, g)
	if err != nil {
		t.Fatal(err)
	}
	r.window = 10 * time.Millisecond
	if err := r.timed(floor); err != nil || floor.rounds[0].rate < 1 {
		t.Errorf("%+v, %v", floor.rounds, err)
	}
}
