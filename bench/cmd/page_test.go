package main

import "testing"

func TestReplacePart(t *testing.T) {
	const (
		bare  = "<!-- begin bare -->\n# One\n<!-- end bare -->\n"
		peers = "<!-- begin peers -->\n# Two\n<!-- end peers -->\n"
	)
	for _, c := range []struct{ page, part, text, want string }{
		{"", "bare", "# One\n", bare},
		{"older\n", "peers", "# Two\n", peers},
		{peers, "bare", "# One\n", bare + peers},
		{bare + peers, "bare", "# 1\n", "<!-- begin bare -->\n# 1\n<!-- end bare -->\n" + peers},
	} {
		if got := replacePart(c.page, partsOfPage, c.part, c.text); got != c.want {
			t.Errorf("%q in %q: %q", c.part, c.page, got)
		}
	}
}
