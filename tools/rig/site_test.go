package rig_test

import (
	"os"
	"strings"
	"testing"

	"ticketgate/store/redistest"
	"ticketgate/tools/rig"
)

// TestSite: a server runs until Close, and what would end a test is an error.
func TestSite(t *testing.T) {
	site := rig.NewSite(t.TempDir())
	defer site.Close()
	var server *redistest.Server
	if err := site.Try(func() { server = redistest.Start(site) }); err != nil {
		t.Fatal(err)
	}
	if v, err := server.Do("PING"); err != nil || v != "PONG" {
		t.Errorf("PING: %v, %v", v, err)
	}
	if err := site.Try(func() { server.Kill(); server.Kill() }); err == nil || !strings.Contains(err.Error(), os.ErrProcessDone.Error()) {
		t.Errorf("killed twice: %v", err)
	}
	if err := site.Try(server.Restart); err != nil {
		t.Fatal(err)
	}
	site.Close()
	if _, err := server.Do("PING"); err == nil {
		t.Error("it answers after Close")
	}
	defer func() {
		if recover() != "other" {
			t.Error("a panic of another kind was swallowed")
		}
	}()
	_ = site.Try(func() { panic("other") })
}
