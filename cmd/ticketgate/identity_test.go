package main

import (
	"strings"
	"testing"
	"time"

	"ticketgate/ticket"
)

// TestNamesake: another node of the name is waited for while its lease runs out, and is an error once it renews it.
func TestNamesake(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	view := func(left time.Duration, dead bool) []ticket.NodeView {
		return []ticket.NodeView{
			{Incarnation: 1, Name: "gw-1", Left: 45 * time.Second},
			{Incarnation: 2, Name: "gw-2", Left: 45 * time.Second},
			{Incarnation: 3, Name: "gw-1", Left: left, Dead: dead},
			{Incarnation: 4, Name: "gw-1", Left: -time.Minute, Dead: true},
		}
	}
	t.Run("ends", func(t *testing.T) {
		w := namesake{name: "gw-1"}
		for _, step := range []struct {
			at, left time.Duration
			dead     bool
			want     time.Duration
		}{
			{0, 30 * time.Second, false, 30 * time.Second},
			{5 * time.Second, 30 * time.Second, false, 25 * time.Second}, // no other view yet
			{10 * time.Second, 20*time.Second + 400*time.Millisecond, false, 20 * time.Second},
			{30 * time.Second, 10 * time.Millisecond, false, lookForNamesake},
			{40 * time.Second, 0, true, 0},
		} {
			if wait, err := w.look(now.Add(step.at), 1, view(step.left, step.dead)); wait != step.want || err != nil {
				t.Errorf("%v: %v, %v", step.at, wait, err)
			}
		}
	})
	t.Run("lives", func(t *testing.T) {
		w := namesake{name: "gw-1"}
		if wait, err := w.look(now, 1, view(40*time.Second, false)); wait != 40*time.Second || err != nil {
			t.Errorf("%v, %v", wait, err)
		}
		if _, err := w.look(now.Add(6*time.Second), 1, view(45*time.Second, false)); err == nil || !strings.Contains(err.Error(), `"gw-1"`) {
			t.Errorf("renewed: %v", err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		w := namesake{name: "gw-3"}
		if wait, err := w.look(now, 1, view(40*time.Second, false)); wait != 0 || err != nil {
			t.Errorf("%v, %v", wait, err)
		}
	})
}
