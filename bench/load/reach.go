package load

import (
	"errors"
	"maps"
)

// ErrUnreachable is a run in which nobody answered: all that was tried was refused, or not answered at all.
var ErrUnreachable = errors.New("the server cannot be reached")

// An unreachableError is an error that is also ErrUnreachable, and says the same as before.
type unreachableError struct{ error }

// Is implements errors.Is.
func (e *unreachableError) Is(target error) bool { return target == ErrUnreachable }

// Unwrap implements errors.Unwrap.
func (e *unreachableError) Unwrap() error { return e.error }

// nobody says that all errors are those of a server that is not there, and that there are any.
func nobody(errs map[string]uint64) bool {
	rest := maps.Clone(errs)
	delete(rest, classRefused)
	delete(rest, classTimeout)
	return len(errs) > 0 && len(rest) == 0
}

// Unreachable says that nobody answered anything in all of r.
func (r *Result) Unreachable() bool {
	rest := maps.Clone(r.Run.Errors) // what no connection was free for waited for those that nobody answers
	delete(rest, classSlow)
	delete(rest, classNothing) // and what was under way at the end had got as far
	if r.Run.Took == 0 {       // there was no run
		rest = r.Opening.Errors
	}
	return r.Opening.Opened == 0 && r.Run.Opened == 0 && r.Run.Done == 0 && nobody(rest)
}
