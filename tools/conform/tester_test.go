package conform_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"ticketgate/tools/conform"
)

// TestOtherLibrary plays against gorilla/websocket: what is found there is what its code says, so the tester is right.
func TestOtherLibrary(t *testing.T) {
	t.Parallel()
	for _, deflate := range []bool{false, true} {
		b := echoBackend(t, deflate)
		open := func(ctx context.Context, offer string) (*conform.Link, error) {
			s, err := conform.Dial(ctx, conform.Target{Addr: b.Addr(), Path: "/"}, offer, seed)
			if err != nil {
				return nil, err
			}
			return &conform.Link{Socket: s}, nil
		}
		results := conform.Run(t.Context(), quick(), conform.Options{Open: open, Deflate: deflate})
		for i := range results {
			r := &results[i]
			if want := otherLibrary(r.Case, deflate); r.Verdict.String() != want {
				t.Errorf("deflate %t: want %s: %s", deflate, want, r.Line())
			}
		}
	}
}

// quick are short messages, without the cases in which the tester would wait for a verdict that gorilla does not give: in the
// middle of a message, on lengths in a long form, and on RSV1 where it means nothing.
func quick() []*conform.Case {
	return slices.DeleteFunc(short(), func(c *conform.Case) bool {
		return c.Bytes > 16<<10 || c.Fast > 0 || strings.HasPrefix(c.ID, "14.2.") || c.ID == "14.5.1" || c.ID == "14.5.2"
	})
}

// otherLibrary is how gorilla/websocket 1.5 behaves.
func otherLibrary(c *conform.Case, deflate bool) string {
	windowed := strings.HasPrefix(c.ID, "13.") && strings.Contains(c.Offer, "window_bits=") && !strings.Contains(c.Offer, ",")
	switch {
	case c.Open:
		return "INFORMATIONAL"
	case c.Section() == "6" && c.End == conform.ByExamined, c.ID == "14.5.5" && deflate:
		return "FAILED" // it leaves UTF-8 to its caller
	case c.Offer != "" && !deflate:
		return "UNIMPLEMENTED"
	case windowed:
		return "FAILED" // it says yes and goes on with its own window
	default:
		return "OK"
	}
}
