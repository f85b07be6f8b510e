package bench

import "testing"

// OpenLoop returns a loop that is closed when the test ends.
func OpenLoop(t *testing.T, o Options) *Loop {
	t.Helper()
	l, err := NewLoop(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}
