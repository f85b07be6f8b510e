package load

import (
	"errors"
	"testing"
)

func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Result)
		want   bool
	}{
		{"nothing happened", func(*Result) {}, false},
		{"refused before a run", func(r *Result) { r.Run.Took, r.Opening.Errors = 0, map[string]uint64{"refused": 9} }, true},
		{"a status before a run", func(r *Result) { r.Run.Took, r.Opening.Errors = 0, map[string]uint64{"http_503": 9} }, false},
		{"refused", func(r *Result) { r.Run.Errors = map[string]uint64{"refused": 9} }, true},
		{"not answered, and no lane free", func(r *Result) { r.Run.Errors = map[string]uint64{"timeout": 9, "no_connection": 3} }, true},
		{"not answered, and some under way", func(r *Result) { r.Run.Errors = map[string]uint64{"timeout": 9, "no_answer": 3} }, true},
		{"some under way alone", func(r *Result) { r.Run.Errors = map[string]uint64{"no_answer": 3} }, false},
		{"no lane free alone", func(r *Result) { r.Run.Errors = map[string]uint64{"no_connection": 3} }, false},
		{"a status", func(r *Result) { r.Run.Errors = map[string]uint64{"refused": 9, "http_503": 1} }, false},
		{"it went away", func(r *Result) { r.Run.Errors, r.Run.Done = map[string]uint64{"refused": 9}, 1 }, false},
		{"it went away behind a 101", func(r *Result) { r.Run.Errors, r.Run.Opened = map[string]uint64{"refused": 9}, 1 }, false},
		{"it went away after the opening", func(r *Result) { r.Run.Errors, r.Opening.Opened = map[string]uint64{"refused": 9}, 1 }, false},
	} {
		r := Result{Run: Running{Took: 1}}
		if c.change(&r); r.Unreachable() != c.want {
			t.Errorf("%s: %v", c.name, !c.want)
		}
	}
	for host, want := range map[string]bool{"no-such-host.invalid": true, "[::1]": false} {
		if _, err := resolve(host, "80"); err == nil || errors.Is(err, ErrUnreachable) != want {
			t.Errorf("%s: %v", host, err)
		}
	}
}
